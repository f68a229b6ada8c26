"""`EdgeTarget` against the edge server of prewarmkit.testing, and against transports that misbehave.

The table of verdicts is of Cloudflare's documentation, "Cloudflare cache responses".
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import traceback
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from attrs import define

from prewarmkit.errors import (
    AccessDenied,
    ConfigurationError,
    MediaUnfit,
    RateLimited,
    RouteUnfit,
    SourceChanged,
    SourceMissing,
    TargetDown,
    TargetFailure,
    Transient,
    TransportError,
)
from prewarmkit.media import Media, ObjectInfo, Warmed
from prewarmkit.targets import EdgeTarget, WarmTarget
from prewarmkit.targets.edge.named_tls import context_for
from prewarmkit.targets.edge.verdicts import WeakReason
from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.contracts.target import MemorySource
from prewarmkit.testing.edge import EdgeServer, Fault, Origin, Rules
from prewarmkit.testing.processes import free_ports
from prewarmkit.transports import DirectTransport, HttpxTransport, Request, Response

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 2000
NO_DELAYS = (0.0, 0.0, 0.0)
TLS = Path(__file__).parents[1] / "data" / "tls"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def edge(clock: FakeClock) -> Iterator[EdgeServer]:
    with EdgeServer(clock=clock) as server:
        server.put("a.jpg", BODY, cache_control="public, max-age=600", etag="v1")
        yield server


@pytest.fixture
async def target(edge: EdgeServer, clock: FakeClock) -> AsyncIterator[EdgeTarget]:
    async with EdgeTarget(edge.url, verify_delays=NO_DELAYS, clock=clock) as target:
        yield target


def asked(edge: EdgeServer) -> list[tuple[str, str | None]]:
    return [(request.method, request.cache_status) for request in edge.requests]


def view(url: str) -> httpx.Response:
    """What a viewer gets; the server is in a thread of its own."""
    return httpx.get(url)


def seconds(edge: EdgeServer, expires_at: datetime | None, clock: FakeClock) -> float:
    assert expires_at is not None
    return expires_at.timestamp() - clock()


# ── verdicts, one by one ─────────────────────────────────────────────────────


async def test_a_fill_is_verified_and_the_handle_is_the_url(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    """MISS is no verdict: the second look is; colo, ETag and the end of its life are kept."""
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert warmed.handle == f"{edge.url}/a.jpg"
    assert (warmed.weak, warmed.unique_id) == ((), "v1")
    assert asked(edge) == [("GET", "MISS"), ("HEAD", "HIT")]
    assert warmed.expires_at == datetime.fromtimestamp(clock() + 600, UTC)
    facts = {"colo": "FRA", "cache_status": "HIT", "age": 0, "verified": True, "mode": "get", "requests": 2}
    assert dict(warmed.details) | facts == dict(warmed.details)
    assert (warmed.details["etag"], warmed.details["size"]) == ("v1", len(BODY))


async def test_priming_never_asks_for_a_range(edge: EdgeServer, target: EdgeTarget) -> None:
    """An edge may keep only the part that was asked for (Cloudflare's Origin Range Requests)."""
    await target.warm(Media("a.jpg"), edge.source())
    for request in edge.requests:
        assert "range" not in request.headers
        assert request.headers["accept-encoding"] == "identity"
        assert not {"cookie", "authorization", "if-none-match"} & set(request.headers)


async def test_a_hit_is_warm_at_once_and_its_age_counts(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    view(f"{edge.url}/a.jpg")
    clock.advance(100)
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge)[1:] == [("GET", "HIT")]
    assert (warmed.details["age"], seconds(edge, warmed.expires_at, clock)) == (100, 500)


@pytest.mark.parametrize("said", ["REVALIDATED", "UPDATING"])
async def test_revalidated_and_updating_are_warm_at_once(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock, said: str
) -> None:
    more = ", stale-while-revalidate=60" if said == "UPDATING" else ""
    edge.put("a.jpg", BODY, cache_control=f"max-age=600{more}")
    view(f"{edge.url}/a.jpg")
    clock.advance(610)
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge)[1:] == [("GET", said)]
    assert (warmed.weak, seconds(edge, warmed.expires_at, clock)) == ((), 600)


async def test_expired_is_no_verdict_but_what_follows_is(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    view(f"{edge.url}/a.jpg")
    edge.put("a.jpg", BODY[:-1], cache_control="max-age=600")
    clock.advance(601)
    assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()
    assert asked(edge)[1:] == [("GET", "EXPIRED"), ("HEAD", "HIT")]


async def test_stale_is_weak_for_now(edge: EdgeServer, target: EdgeTarget, clock: FakeClock) -> None:
    """The edge cannot reach the origin; that heals, so it may be tried again."""
    view(f"{edge.url}/a.jpg")
    clock.advance(601)
    edge.origin.is_reachable = False
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert warmed.weak == (WeakReason.STALE,)
    assert not WeakReason.STALE.is_final
    assert asked(edge)[1:] == [("GET", "STALE")]


@pytest.mark.parametrize("why", ["cookie", "size", "evicted", "forced"])
async def test_a_miss_again_is_not_retained_after_three_looks(
    edge: EdgeServer, target: EdgeTarget, why: str
) -> None:
    """A cookie or a size over the limit shows as MISS each time; so does what is evicted at once."""
    if why == "cookie":
        edge.rules = Rules(cookies="miss")
        edge.put("a.jpg", BODY, headers={"set-cookie": "a=1"})
    elif why == "size":
        edge.rules = Rules(max_object_bytes=len(BODY) - 1)
    else:
        edge.fail(Fault(times=9, evicts=why == "evicted", cache_status="MISS" if why == "forced" else None))
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert warmed.weak == (WeakReason.NOT_RETAINED,)
    assert asked(edge) == [("GET", "MISS")] + [("HEAD", "MISS")] * 3


async def test_what_is_kept_only_at_the_third_look_is_warm(edge: EdgeServer, target: EdgeTarget) -> None:
    """Storing takes an edge a moment."""
    edge.fail(Fault(times=3, cache_status="MISS"))
    assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()
    assert asked(edge)[-1] == ("HEAD", "HIT")
    assert len(edge.requests) == 4


@pytest.mark.parametrize(
    ("key", "cache_control", "fault", "reason"),
    [
        ("a.m4a", None, None, "ineligible_extension"),
        ("b.jpg", "private", None, "origin_forbids"),
        ("b.jpg", None, Fault(hides_cache=True), "not_cloudflare_cache"),
        ("b.jpg", None, Fault(cache_status="NONE"), "not_cloudflare_cache"),
        ("b.jpg", None, Fault(cache_status="UNKNOWN"), "not_cloudflare_cache"),
    ],
)
async def test_what_never_heals_costs_one_request_and_is_weak(
    edge: EdgeServer,
    target: EdgeTarget,
    key: str,
    cache_control: str | None,
    fault: Fault | None,
    reason: str,
) -> None:
    """It is a matter of configuration; nothing is verified, and the reason says that it is final."""
    edge.put(key, BODY, cache_control=cache_control)
    if fault is not None:
        edge.fail(fault)
    warmed = await target.warm(Media(key), edge.source())
    assert warmed.weak == (reason,)
    assert [getattr(weakness, "is_final", None) for weakness in warmed.weak] == [True]
    assert (warmed.expires_at, warmed.details["requests"]) == (None, 1)
    assert len(edge.requests) == 1


async def test_an_ineligible_film_is_not_downloaded_to_learn_that(clock: FakeClock) -> None:
    """The head says it; the body is left."""
    transport = ScriptedTransport(headers={"cf-cache-status": "DYNAMIC"}, size=1 << 40)
    target = EdgeTarget("https://media.example.com", transport=transport)
    warmed = await target.warm(Media("film.mov"), SizedSource(1 << 40))
    assert (warmed.weak, transport.chunks_read) == (("ineligible_extension",), 0)


# ── anything but what the source has is a failure ────────────────────────────


async def test_a_cached_404_is_failed_though_it_says_hit(edge: EdgeServer, target: EdgeTarget) -> None:
    """It was asked for before it was uploaded; it is kept for three minutes, so another attempt helps."""
    view(f"{edge.url}/late.jpg")
    edge.put("late.jpg", BODY)
    with pytest.raises(Transient, match="answered 404") as caught:
        await target.warm(Media("late.jpg"), edge.source())
    assert asked(edge)[-1] == ("GET", "HIT")
    assert caught.value.spends_attempt


async def test_what_the_source_has_not_is_never_asked_of_the_edge(
    edge: EdgeServer, target: EdgeTarget
) -> None:
    """It would keep the 404 for three minutes."""
    with pytest.raises(SourceMissing):
        await target.warm(Media("missing.jpg"), edge.source())
    assert edge.requests == []


async def test_what_was_deleted_meanwhile_is_source_missing(edge: EdgeServer, target: EdgeTarget) -> None:
    source = edge.source()
    with edge.gate() as gate:
        async with anyio.create_task_group() as tasks:

            async def warm() -> None:
                with pytest.raises(SourceMissing):
                    await target.warm(Media("a.jpg"), source)

            tasks.start_soon(warm)
            await anyio.to_thread.run_sync(gate.wait_for, 1)
            edge.delete("a.jpg")
            gate.open()


@pytest.mark.parametrize("change", ["etag", "size"])
async def test_another_version_at_the_edge_is_failed(
    edge: EdgeServer, target: EdgeTarget, change: str
) -> None:
    """What was overwritten is served until it expires or is purged; no byte of it is read."""
    view(f"{edge.url}/a.jpg")
    edge.put("a.jpg", BODY if change == "etag" else BODY[:-1], etag="v2" if change == "etag" else "v1")
    with pytest.raises(SourceChanged, match="purge it"):
        await target.warm(Media("a.jpg"), edge.source())
    edge.purge("a.jpg")
    assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()


async def test_an_etag_of_the_sources_own_kind_can_be_left_out(edge: EdgeServer) -> None:
    source = SizedSource(len(BODY), etag="inode-17")
    async with EdgeTarget(edge.url, verify_delays=NO_DELAYS) as strict:
        with pytest.raises(SourceChanged, match="ETag"):
            await strict.warm(Media("a.jpg"), source)
    async with EdgeTarget(edge.url, verify_delays=NO_DELAYS, match_etag=False) as lax:
        assert (await lax.warm(Media("a.jpg"), source)).weak == ()


async def test_a_body_is_hashed_where_the_medium_names_a_digest(edge: EdgeServer, target: EdgeTarget) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    assert (await target.warm(Media("a.jpg", sha256=digest.upper()), edge.source())).weak == ()
    edge.put("b.jpg", BODY)
    with pytest.raises(SourceChanged, match="SHA-256"):
        await target.warm(Media("b.jpg", sha256="0" * 64), edge.source())


async def test_a_body_that_breaks_is_transient(edge: EdgeServer, target: EdgeTarget) -> None:
    edge.fail(Fault(cut_after_bytes=1000), Fault(reset=True))
    for _ in range(2):
        with pytest.raises(Transient, match="no whole answer"):
            await target.warm(Media("a.jpg"), edge.source())
    assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()


@pytest.mark.parametrize(
    ("announced", "sent", "failure"),
    [(1000, 999, Transient), (None, 999, SourceChanged), (None, 1001, SourceChanged)],
)
async def test_a_body_of_another_length_is_never_warm(
    announced: int | None, sent: int, failure: type[TargetFailure]
) -> None:
    """Also where the transport does not notice."""
    transport = ScriptedTransport(headers={"cf-cache-status": "HIT"}, size=sent, announced=announced)
    target = EdgeTarget("https://media.example.com", transport=transport)
    with pytest.raises(failure):
        await target.warm(Media("a.jpg"), SizedSource(1000))


async def test_a_body_is_thrown_away_as_it_comes() -> None:
    """1 GiB takes no more memory than a chunk."""
    transport = ScriptedTransport(headers={"cf-cache-status": "HIT"}, size=1 << 30, chunk_bytes=1 << 18)
    target = EdgeTarget("https://media.example.com", transport=transport)
    await target.warm(Media("warm-up.mp4"), SizedSource(1 << 30))
    tracemalloc.start()
    try:
        await target.warm(Media("film.mp4"), SizedSource(1 << 30))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert transport.chunks_read == 2 * (1 << 30) // (1 << 18)
    assert peak < 1 << 20


async def test_a_body_that_never_ends_is_left_where_it_is_too_long() -> None:
    transport = ScriptedTransport(headers={"cf-cache-status": "HIT"}, size=1 << 40, chunk_bytes=1 << 16)
    target = EdgeTarget("https://media.example.com", transport=transport)
    with pytest.raises(SourceChanged, match="more than 1000"):
        await target.warm(Media("a.jpg"), SizedSource(1000))
    assert transport.chunks_read == 1


# ── failures of the target, of the source ────────────────────────────────────


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (Fault(status=429, retry_after=7), RateLimited),
        (Fault(status=503, retry_after=7), RateLimited),
        (Fault(status=521), TargetDown),
        (Fault(status=403, headers={"cf-mitigated": "challenge"}), TargetDown),
        (Fault(status=301, headers={"location": "https://www.example.com/a.jpg"}), TargetDown),
    ],
)
async def test_what_is_the_targets_fault_spends_no_attempt(
    edge: EdgeServer, target: EdgeTarget, fault: Fault, failure: type[TargetFailure]
) -> None:
    edge.fail(fault)
    with pytest.raises(failure) as caught:
        await target.warm(Media("a.jpg"), edge.source())
    assert not caught.value.spends_attempt
    assert len(edge.requests) == 1
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 7


async def test_a_redirect_is_not_followed(edge: EdgeServer, target: EdgeTarget) -> None:
    """Another URL would be warm, and a login page says HIT as well as any."""
    edge.fail(Fault(status=302, headers={"location": f"{edge.url}/login?state=hunter2"}))
    with pytest.raises(RouteUnfit) as caught:
        await target.warm(Media("a.jpg"), edge.source())
    assert "hunter2" not in str(caught.value)
    assert len(edge.requests) == 1


@pytest.mark.parametrize("status", [403, 500, 502])
async def test_other_statuses_are_transient(edge: EdgeServer, target: EdgeTarget, status: int) -> None:
    edge.fail(Fault(status=status, headers={"cf-cache-status": "HIT"}))
    with pytest.raises(Transient, match=str(status)):
        await target.warm(Media("a.jpg"), edge.source())


async def test_a_failure_on_the_second_look_counts_too(edge: EdgeServer, target: EdgeTarget) -> None:
    edge.fail(Fault(status=502, method="HEAD"))
    with pytest.raises(Transient):
        await target.warm(Media("a.jpg"), edge.source())


async def test_nobody_at_the_address_is_transient() -> None:
    [port] = free_ports(1)
    async with EdgeTarget(f"http://127.0.0.1:{port}") as target:
        with pytest.raises(Transient) as caught:
            await target.warm(Media("a.jpg"), MemorySource({"a.jpg": BODY}))
    assert not caught.value.outcome_unknown


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (AccessDenied("wrong secret", code="SignatureDoesNotMatch", status=403), TargetDown),
        (AccessDenied("not this key", code="AccessDenied", status=403), Transient),
        (TransportError("reset"), Transient),
    ],
)
async def test_a_source_that_says_nothing_of_the_object_is_the_matching_failure(
    edge: EdgeServer, target: EdgeTarget, error: Exception, failure: type[TargetFailure]
) -> None:
    source = MemorySource({"a.jpg": BODY}, open_error=error)
    with pytest.raises(failure):
        await target.warm(Media("a.jpg"), source)
    assert edge.requests == []


async def test_a_key_that_no_url_keeps_asks_nobody(edge: EdgeServer, target: EdgeTarget) -> None:
    source = MemorySource({"a/../b.jpg": BODY})
    with pytest.raises(MediaUnfit):
        await target.warm(Media("a/../b.jpg"), source)
    assert edge.requests == []


@pytest.mark.parametrize("key", ["a b.jpg", "ü/фото.jpg", "a?b#c.jpg", "100%.jpg", "a//b+c&d=e.jpg"])
async def test_any_other_key_arrives_as_it_is(edge: EdgeServer, target: EdgeTarget, key: str) -> None:
    """And the handle is the URL that a viewer must use for it."""
    edge.put(key, BODY)
    warmed = await target.warm(Media(key), edge.source())
    assert warmed.weak == ()
    answer = view(warmed.handle)
    assert (answer.content, answer.headers["cf-cache-status"]) == (BODY, "HIT")


# ── data centres, times, second times ────────────────────────────────────────


async def test_another_data_centre_on_the_second_look_begins_anew(
    edge: EdgeServer, target: EdgeTarget
) -> None:
    """What one has says nothing of the other."""
    edge.fail(Fault(), Fault(colo="AMS", times=3))
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert [(request.method, request.colo, request.cache_status) for request in edge.requests] == [
        ("GET", "FRA", "MISS"),
        ("HEAD", "AMS", "MISS"),
        ("GET", "AMS", "HIT"),
    ]
    assert (warmed.weak, warmed.details["colo"]) == ((), "AMS")


async def test_data_centres_that_change_each_time_are_weak(edge: EdgeServer, target: EdgeTarget) -> None:
    edge.fail(*[Fault(colo=colo) for colo in ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG")])
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert warmed.weak == (WeakReason.COLO_CHANGED,)
    assert len(edge.requests) == 6


async def test_a_hit_without_an_age_is_warm(clock: FakeClock) -> None:
    """The first hit that a lower tier fills from an upper one has none (Cloudflare cache responses, "Age")."""
    with EdgeServer(tiered=True, clock=clock) as edge:
        edge.put("a.jpg", BODY, cache_control="max-age=600")
        view(f"{edge.url}/a.jpg")
        edge.colo = "AMS"
        async with EdgeTarget(edge.url, verify_delays=NO_DELAYS, clock=clock) as target:
            warmed = await target.warm(Media("a.jpg"), edge.source())
        assert (warmed.weak, warmed.details["age"]) == ((), None)
        assert seconds(edge, warmed.expires_at, clock) == 600


async def test_without_a_word_a_200_expires_after_two_hours(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    edge.put("b.jpg", BODY)
    warmed = await target.warm(Media("b.jpg"), edge.source())
    assert seconds(edge, warmed.expires_at, clock) == 7200


async def test_a_rule_of_the_zone_can_be_told(edge: EdgeServer, clock: FakeClock) -> None:
    edge.rules = Rules(edge_ttl_seconds=86400)
    async with EdgeTarget(
        edge.url, verify_delays=NO_DELAYS, edge_ttl=timedelta(days=1), clock=clock
    ) as target:
        warmed = await target.warm(Media("a.jpg"), edge.source())
    assert seconds(edge, warmed.expires_at, clock) == 86400


async def test_a_hit_that_is_about_to_end_is_waited_out(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    """Asking does not make it younger: a second before its end it would be cold for the next viewer."""
    await target.warm(Media("a.jpg"), edge.source())
    clock.advance(599)
    with edge.gate() as gate:
        async with anyio.create_task_group() as tasks:
            results: list[Warmed] = []

            async def warm() -> None:
                results.append(await target.warm(Media("a.jpg"), edge.source()))

            tasks.start_soon(warm)
            await anyio.to_thread.run_sync(gate.wait_for, 1)
            gate.open()
    assert asked(edge)[2] == ("HEAD", "HIT")
    assert len(edge.requests) > 3
    clock.advance(2)
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert seconds(edge, warmed.expires_at, clock) == 600


async def test_a_known_hit_that_ends_meanwhile_needs_no_second_reading(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    """The origin confirms it, so the bytes are those that were read."""
    await target.warm(Media("a.jpg"), edge.source())
    clock.advance(599)
    edge.fail(Fault(), Fault(cache_status="REVALIDATED", headers={"age": "0"}))
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge)[2:] == [("HEAD", "HIT"), ("HEAD", "REVALIDATED")]
    assert seconds(edge, warmed.expires_at, clock) == 600


async def test_a_hit_that_outlives_its_headers_is_looked_at_again_a_life_later(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    """A rule of the zone keeps it, and no header tells; it must not be stale as soon as it is warm."""
    edge.fail(Fault(cache_status="HIT", headers={"age": "601"}, times=9))
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert (warmed.weak, seconds(edge, warmed.expires_at, clock)) == ((), 600)


@pytest.mark.parametrize("why", ["no etag", "forgotten"])
async def test_what_is_not_known_for_certain_is_read_again(
    edge: EdgeServer, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Without an ETag nothing tells content from content; and no process remembers media without a bound."""
    monkeypatch.setattr("prewarmkit.targets.edge.target._MOST_KNOWN", 1)
    edge.put("b.jpg", BODY)
    async with EdgeTarget(edge.url, verify_delays=NO_DELAYS, match_etag=why == "forgotten") as target:
        for key in ("a.jpg", "b.jpg", "a.jpg") if why == "forgotten" else ("a.jpg", "a.jpg"):
            await target.warm(Media(key), edge.source())
    assert asked(edge)[-1] == ("GET", "HIT")


async def test_bytes_that_came_whole_once_are_not_fetched_again_while_they_hit(
    edge: EdgeServer, target: EdgeTarget, clock: FakeClock
) -> None:
    """A pool warms again before the end of each life, when a HEAD tells as much."""
    await target.warm(Media("a.jpg"), edge.source())
    clock.advance(400)
    warmed = await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge)[2:] == [("HEAD", "HIT")]
    assert (warmed.weak, warmed.details["mode"], seconds(edge, warmed.expires_at, clock)) == ((), "head", 200)
    edge.purge()
    await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge)[3:] == [("HEAD", "MISS"), ("GET", "HIT")]


async def test_another_version_is_fetched_whole_again(edge: EdgeServer, target: EdgeTarget) -> None:
    await target.warm(Media("a.jpg"), edge.source())
    edge.put("a.jpg", BODY, etag="v2")
    edge.purge()
    await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge)[2:] == [("GET", "MISS"), ("HEAD", "HIT")]


async def test_head_alone_is_enough_where_the_edge_makes_a_get_of_it(edge: EdgeServer) -> None:
    """Cloudflare does (cache/concepts/cache-behavior): the whole is kept, and no byte of it comes here."""
    async with EdgeTarget(edge.url, method="HEAD", verify_delays=NO_DELAYS) as target:
        warmed = await target.warm(Media("a.jpg"), edge.source())
    assert asked(edge) == [("HEAD", "MISS"), ("HEAD", "HIT")]
    assert (warmed.weak, warmed.details["mode"]) == ((), "head")
    assert edge.holds("a.jpg")


async def test_without_verifying_a_fill_is_taken_at_its_word(edge: EdgeServer, clock: FakeClock) -> None:
    async with EdgeTarget(edge.url, verify=False, clock=clock) as target:
        warmed = await target.warm(Media("a.jpg"), edge.source())
        assert asked(edge) == [("GET", "MISS")]
        assert (warmed.weak, warmed.details["verified"]) == ((), False)
        assert seconds(edge, warmed.expires_at, clock) == 600
        edge.put("b.m4a", BODY)
        assert (await target.warm(Media("b.m4a"), edge.source())).weak == ("ineligible_extension",)


async def test_another_caches_header_can_be_named(edge: EdgeServer) -> None:
    """Such as the one that nginx is told to add."""
    edge.fail(Fault(hides_cache=True, headers={"X-Cache": "HIT"}))
    async with EdgeTarget(edge.url, status_header="X-Cache") as target:
        assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()


# ── several places ───────────────────────────────────────────────────────────


@pytest.fixture
def two(clock: FakeClock) -> Iterator[tuple[EdgeServer, EdgeServer]]:
    origin = Origin()
    origin.put("a.jpg", BODY, cache_control="max-age=600")
    with (
        EdgeServer(origin=origin, colo="FRA", clock=clock) as one,
        EdgeServer(origin=origin, colo="AMS", clock=clock) as other,
    ):
        yield one, other


async def test_several_base_urls_are_all_primed(two: tuple[EdgeServer, EdgeServer], clock: FakeClock) -> None:
    """The first gives the handle, the shortest life the end."""
    one, other = two
    view(f"{other.url}/a.jpg")
    clock.advance(100)
    async with EdgeTarget([one.url, other.url], verify_delays=NO_DELAYS, clock=clock) as target:
        warmed = await target.warm(Media("a.jpg"), one.source())
    assert warmed.handle == f"{one.url}/a.jpg"
    assert [place["colo"] for place in warmed.details["places"]] == ["FRA", "AMS"]
    assert (warmed.details["requests"], seconds(one, warmed.expires_at, clock)) == (3, 500)


async def test_one_weak_place_makes_it_weak(two: tuple[EdgeServer, EdgeServer]) -> None:
    one, other = two
    other.fail(Fault(hides_cache=True))
    async with EdgeTarget([one.url, other.url], verify_delays=NO_DELAYS) as target:
        warmed = await target.warm(Media("a.jpg"), one.source())
    assert warmed.weak == ("not_cloudflare_cache",)
    assert one.holds("a.jpg")


async def test_one_place_that_fails_is_a_failure_and_the_other_is_primed(
    two: tuple[EdgeServer, EdgeServer],
) -> None:
    """Of several failures the one that burns no attempt is told."""
    one, other = two
    one.fail(Fault(status=500))
    other.fail(Fault(status=429))
    async with EdgeTarget([one.url, other.url], verify_delays=NO_DELAYS) as target:
        with pytest.raises(RateLimited):
            await target.warm(Media("a.jpg"), one.source())
        one.fail(Fault(status=500))
        with pytest.raises(Transient, match=str(one.port)):
            await target.warm(Media("a.jpg"), one.source())
    assert other.holds("a.jpg")


async def test_each_address_is_primed_under_the_viewers_name(two: tuple[EdgeServer, EdgeServer]) -> None:
    one, other = two
    async with EdgeTarget(
        "http://media.example.com", addresses=[one.address, other.address], verify_delays=NO_DELAYS
    ) as target:
        warmed = await target.warm(Media("a.jpg"), one.source())
    assert warmed.handle == "http://media.example.com/a.jpg"
    for server in two:
        assert {request.host for request in server.requests} == {"media.example.com"}
        assert server.holds("a.jpg", host="media.example.com")


async def test_an_address_is_asked_by_tls_for_the_hosts_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is the host's, not the address's, and so is the name that is checked."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "localhost.pem"))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(TLS / "localhost.pem", TLS / "localhost.key")
    names: list[str | None] = []
    served.sni_callback = lambda _tls, name, _context: names.append(name)
    with EdgeServer(ssl_context=served) as edge:
        edge.put("a.jpg", BODY)
        async with EdgeTarget(
            "https://localhost", addresses=[edge.address], verify_delays=NO_DELAYS
        ) as target:
            warmed = await target.warm(Media("a.jpg"), edge.source())
        assert (warmed.handle, warmed.weak) == ("https://localhost/a.jpg", ())
        assert (set(names), {request.host for request in edge.requests}) == ({"localhost"}, {"localhost"})
        async with EdgeTarget("https://other.example", addresses=[edge.address]) as target:
            with pytest.raises(TargetDown, match="not trusted"):
                await target.warm(Media("a.jpg"), edge.source())
        async with DirectTransport(ssl_context=context_for("localhost")) as transport:
            url = f"https://{edge.address}/a.jpg"
            async with transport.send(Request("HEAD", url, (("host", "localhost"),))) as response:
                assert response.status == 200


# ── how it is made, and what it shows ────────────────────────────────────────


def test_it_is_a_target_of_one_row_a_key() -> None:
    target = EdgeTarget("https://media.example.com/m/")
    assert isinstance(target, WarmTarget)
    assert EdgeTarget.ignores_kind
    assert target.id == "edge:media.example.com/m"
    assert EdgeTarget("https://media.example.com", id="zone-7").id == "zone-7"


@pytest.mark.parametrize(
    "arguments",
    [
        {"base_url": ""},
        {"base_url": []},
        {"method": "POST"},
        {"method": "get"},
        {"verify": 1},
        {"match_etag": None},
        {"id": " "},
        {"id": 7},
        {"id": "a\nb"},
        {"edge_ttl": 0},
        {"edge_ttl": -1},
        {"edge_ttl": float("nan")},
        {"edge_ttl": float("inf")},
        {"edge_ttl": "1h"},
        {"verify_delays": ()},
        {"verify_delays": 0.5},
        {"verify_delays": [-1]},
        {"verify_delays": "1"},
        {"addresses": ["media.example.com"]},
        {"addresses": 7},
        {"status_header": "x cache"},
        {"status_header": None},
        {"transport": object()},
        {"clock": 7},
        {"transport": DirectTransport(), "addresses": ["192.0.2.7"]},
    ],
)
def test_what_cannot_be_fails_at_construction(arguments: dict[str, Any]) -> None:
    given: dict[str, Any] = {"base_url": "https://media.example.com", **arguments}
    with pytest.raises(ConfigurationError) as caught:
        EdgeTarget(**given)
    assert str(caught.value)


async def test_it_says_where_it_is_not_entered_and_is_entered_once() -> None:
    target = EdgeTarget("https://media.example.com")
    with pytest.raises(ConfigurationError, match="not entered"):
        await target.warm(Media("a.jpg"), MemorySource())
    async with target:
        with pytest.raises(RuntimeError, match="entered already"):
            await target.__aenter__()
    with pytest.raises(ConfigurationError, match="not entered"):
        await target.warm(Media("a.jpg"), MemorySource())
    async with target:
        pass  # again, after it was left


async def test_a_transport_of_the_hosts_is_shared_and_not_closed(edge: EdgeServer) -> None:
    async with DirectTransport() as transport:
        for _ in range(2):
            async with EdgeTarget(edge.url, transport=transport, verify_delays=NO_DELAYS) as target:
                assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()
        assert transport.statistics().opened == 1


async def test_it_works_through_httpx(edge: EdgeServer, anyio_backend: str) -> None:
    """Which normalises URLs, and so must change nothing of these."""
    edge.put("a b(1)~ü.jpg", BODY)
    async with httpx.AsyncClient() as client:
        target = EdgeTarget(edge.url, transport=HttpxTransport(client), verify_delays=NO_DELAYS)
        warmed = await target.warm(Media("a b(1)~ü.jpg"), edge.source())
    assert warmed.weak == ()
    assert edge.requests[0].path == "/a%20b%281%29~%C3%BC.jpg"


async def test_no_secret_of_a_base_url_or_an_answer_is_shown(
    edge: EdgeServer, target: EdgeTarget, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="prewarmkit")
    with pytest.raises(ConfigurationError) as refused:
        EdgeTarget("https://user:hunter2@media.example.com/?sig=hunter2")
    edge.fail(Fault(status=302, headers={"location": "https://x.example/a.jpg?sig=hunter2"}))
    with pytest.raises(TargetDown) as moved:
        await target.warm(Media("a.jpg"), edge.source())
    told = [*traceback.format_exception(refused.value), *traceback.format_exception(moved.value)]
    source_line = 'EdgeTarget("https://user:hunter2@media.example.com/?sig=hunter2")'
    shown = "".join(told).replace(source_line, "") + caplog.text + repr(target)
    assert "hunter2" not in shown


async def test_a_cancelled_priming_leaves_no_connection_in_use(edge: EdgeServer) -> None:
    async with DirectTransport() as transport:
        target = EdgeTarget(edge.url, transport=transport, verify_delays=NO_DELAYS)
        with edge.gate() as gate:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(target.warm, Media("a.jpg"), edge.source())
                await anyio.to_thread.run_sync(gate.wait_for, 1)
                tasks.cancel_scope.cancel()
        assert transport.statistics().busy == 0
        assert (await target.warm(Media("a.jpg"), edge.source())).weak == ()


# ── stand-ins ────────────────────────────────────────────────────────────────


@define
class SizedSource:
    """Knows the size of everything, and has nothing."""

    size: int
    etag: str | None = None

    async def head(self, key: str) -> ObjectInfo:
        await anyio.lowlevel.checkpoint()
        return ObjectInfo(key=key, size=self.size, etag=self.etag)

    def open(self, key: str) -> Any:
        raise AssertionError(f"{key!r} was opened")

    def url(self, key: str, *, version: str | None = None) -> str | None:
        return None


@define
class ScriptedTransport:
    """Answers 200 with a body of zeros that is never in memory as a whole."""

    headers: dict[str, str]
    size: int
    announced: int | None = None
    chunk_bytes: int = 1 << 16
    chunks_read: int = 0

    @asynccontextmanager
    async def send(
        self, request: Request, *, deadline_seconds: float | None = None
    ) -> AsyncGenerator[Response]:
        await anyio.lowlevel.checkpoint()
        assert deadline_seconds is not None
        assert deadline_seconds > 100
        more = {} if self.announced is None else {"content-length": str(self.announced)}
        async with aclosing(self._body()) as body:
            yield Response(200, tuple({**self.headers, **more}.items()), body)

    async def _body(self) -> AsyncGenerator[bytes]:
        zeros, left = bytes(self.chunk_bytes), self.size
        while left:
            self.chunks_read += 1
            chunk = zeros if left >= self.chunk_bytes else zeros[:left]
            left -= len(chunk)
            yield chunk
