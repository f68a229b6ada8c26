"""The edge server of prewarmkit.testing, asked by httpx, which knows nothing of it.

The rules are Cloudflare's and cannot be tried on it here, so each test names the page of developers.cloudflare.com that it is
from: "responses" is cache/concepts/cache-responses, "behaviour" is cache/concepts/default-cache-behavior, "revalidation" is
cache/concepts/revalidation, "status codes" is cache/how-to/configure-cache-status-code, "tiered" is cache/how-to/tiered-cache.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator

import httpx
import pytest

from prewarmkit.testing.clock import FakeClock
from prewarmkit.testing.edge import DEFAULT_EXTENSIONS, EdgeServer, Fault, Origin, OriginRequest, Rules

BODY = bytes(range(256)) * 700


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def edge(clock: FakeClock) -> Iterator[EdgeServer]:
    with EdgeServer(clock=clock) as server:
        yield server


@pytest.fixture
def http(edge: EdgeServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=edge.url) as client:
        yield client


def cache_of(answer: httpx.Response) -> str | None:
    said: str | None = answer.headers.get("cf-cache-status")
    return said


# ── what the cache says ──────────────────────────────────────────────────────


def test_a_first_request_misses_and_the_next_one_hits_with_its_age(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """responses: MISS is served from the origin and HIT from the cache; Age is not on a MISS."""
    edge.put("a.jpg", BODY, cache_control="public, max-age=60")
    first = http.get("/a.jpg")
    clock.advance(7)
    second = http.get("/a.jpg")
    assert [cache_of(first), cache_of(second)] == ["MISS", "HIT"]
    assert first.headers["etag"] == f'"{hashlib.md5(BODY).hexdigest()}"'  # R2's, of an object in one part
    assert "age" not in first.headers
    assert second.headers["age"] == "7"
    assert first.content == second.content == BODY
    assert first.headers["etag"] == second.headers["etag"]
    assert edge.origin_requests == [OriginRequest("a.jpg", None, 200)]


def test_cf_ray_ends_in_the_data_centre(edge: EdgeServer, http: httpx.Client) -> None:
    """fundamentals/reference/http-headers: CF-Ray is a hash and the data centre that the visitor connected to."""
    edge.put("a.jpg", BODY)
    edge.colo = "AMS"
    assert re.fullmatch(r"[0-9a-f]{16}-AMS", http.get("/a.jpg").headers["cf-ray"])


def test_a_head_fills_the_cache(edge: EdgeServer, http: httpx.Client) -> None:
    """cache/concepts/cache-behavior: a HEAD is turned into a GET for the origin, the whole is cached, headers return."""
    edge.put("a.jpg", BODY)
    head = http.head("/a.jpg")
    assert cache_of(head) == "MISS"
    assert head.headers["content-length"] == str(len(BODY))
    assert cache_of(http.get("/a.jpg")) == "HIT"
    assert len(edge.origin_requests) == 1


@pytest.mark.parametrize("extension", ["m4a", "mov", "m4v", "aac", "wav", "opus", "oga", "heic", "tgs"])
def test_what_is_not_on_the_list_is_dynamic(edge: EdgeServer, http: httpx.Client, extension: str) -> None:
    """behaviour: Cloudflare caches by extension, never by type; responses: DYNAMIC."""
    edge.put(f"a.{extension}", BODY, content_type="image/jpeg", cache_control="public, max-age=60")
    assert [cache_of(http.get(f"/a.{extension}")) for _ in range(2)] == ["DYNAMIC"] * 2


def test_keys_without_an_extension_are_dynamic(edge: EdgeServer, http: httpx.Client) -> None:
    """behaviour: only listed extensions are eligible; a folder's dot is none."""
    for key in ("plain", "v1.2/plain", ".jpg"):
        edge.put(key, BODY)
        assert cache_of(http.get(f"/{key}")) == "DYNAMIC"


def test_media_extensions_that_are_on_the_list(edge: EdgeServer, http: httpx.Client) -> None:
    """behaviour: the table of default cached file extensions; capitals are the same."""
    assert {
        "jpg",
        "png",
        "gif",
        "webp",
        "avif",
        "mp4",
        "webm",
        "mkv",
        "avi",
        "mp3",
        "ogg",
        "flac",
    } <= DEFAULT_EXTENSIONS
    assert {"mid", "pdf", "zip"} <= DEFAULT_EXTENSIONS
    edge.put("A.JPG", BODY)
    assert [cache_of(http.get("/A.JPG")) for _ in range(2)] == ["MISS", "HIT"]


def test_a_cache_rule_makes_everything_eligible(edge: EdgeServer, http: httpx.Client) -> None:
    """behaviour: a Cache Rule caches additional content."""
    edge.put("a.tgs", BODY)
    edge.rules = Rules(caches_everything=True)
    assert [cache_of(http.get("/a.tgs")) for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("directive", ["private", "no-store", "no-cache", "max-age=0"])
def test_what_the_origin_forbids_is_bypassed(edge: EdgeServer, http: httpx.Client, directive: str) -> None:
    """behaviour: not cached with these; responses: BYPASS."""
    edge.put("a.jpg", BODY, cache_control=directive)
    assert [cache_of(http.get("/a.jpg")) for _ in range(2)] == ["BYPASS"] * 2


@pytest.mark.parametrize(("cookies", "said"), [("bypass", "BYPASS"), ("miss", "MISS")])
def test_a_cookie_keeps_it_out_of_the_cache(cookies: str, said: str) -> None:
    """cache/concepts/cache-behavior, "Interaction of Set-Cookie": depending on settings BYPASS, or MISS each time."""
    rules = Rules(cookies="bypass" if cookies == "bypass" else "miss")
    with EdgeServer(rules=rules) as edge, httpx.Client(base_url=edge.url) as http:
        edge.put("a.jpg", BODY, headers={"Set-Cookie": "a=1"})
        assert [cache_of(http.get("/a.jpg")) for _ in range(2)] == [said] * 2


def test_an_object_over_the_size_limit_is_never_kept() -> None:
    """behaviour, "Cacheable size limits": 512 MB but in Enterprise; what the header says is an assumption, MISS."""
    assert Rules().max_object_bytes == 512_000_000
    with EdgeServer(rules=Rules(max_object_bytes=1000)) as edge, httpx.Client(base_url=edge.url) as http:
        edge.put("small.jpg", bytes(1000))
        edge.put("large.jpg", bytes(1001))
        assert [cache_of(http.get("/small.jpg")) for _ in range(2)] == ["MISS", "HIT"]
        assert [cache_of(http.get("/large.jpg")) for _ in range(2)] == ["MISS", "MISS"]


# ── how long ─────────────────────────────────────────────────────────────────


def test_without_a_word_a_200_stays_two_hours_and_a_404_three_minutes(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """Status codes: 200, 206 and 301 120 minutes, 404 and 410 3 minutes."""
    edge.put("a.jpg", BODY)
    assert http.get("/b.jpg").status_code == http.get("/b.jpg").status_code == 404
    http.get("/a.jpg")
    edge.put("b.jpg", BODY)
    clock.advance(179)
    missing = http.get("/b.jpg")
    assert (missing.status_code, cache_of(missing)) == (404, "HIT")  # primed before it was uploaded
    clock.advance(1)
    found = http.get("/b.jpg")
    assert (found.status_code, cache_of(found)) == (200, "EXPIRED")
    clock.advance(7019)
    assert cache_of(http.get("/a.jpg")) == "HIT"
    clock.advance(1)
    assert cache_of(http.get("/a.jpg")) != "HIT"


def test_max_age_goes_before_expires_and_s_maxage_before_both(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """behaviour: if both are set, max-age is used; cache/concepts/cache-control: s-maxage is for shared caches."""
    far = {"Expires": "Wed, 01 Jan 2070 00:00:00 GMT"}
    edge.put("a.jpg", BODY, cache_control="max-age=10", headers=far)
    edge.put("b.jpg", BODY, cache_control="max-age=10, s-maxage=30")
    edge.put("c.jpg", BODY, headers=far)
    for key in "abc":
        http.get(f"/{key}.jpg")
    clock.advance(20)
    assert cache_of(http.get("/a.jpg")) == "REVALIDATED"
    assert cache_of(http.get("/b.jpg")) == cache_of(http.get("/c.jpg")) == "HIT"


def test_an_unchanged_object_is_revalidated_and_young_again(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """responses: REVALIDATED is confirmed by a conditional request; Age resets if the asset is revalidated."""
    edge.put("a.jpg", BODY, cache_control="max-age=10", etag="one")
    http.get("/a.jpg")
    clock.advance(11)
    assert cache_of(http.get("/a.jpg")) == "REVALIDATED"
    clock.advance(2)
    assert http.get("/a.jpg").headers["age"] == "2"
    assert edge.origin_requests[-1] == OriginRequest("a.jpg", '"one"', 304)


def test_a_changed_object_is_expired_and_its_new_bytes_come(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """responses: EXPIRED is served from the origin; until then what was overwritten is served (R2, "consistency")."""
    edge.put("a.jpg", b"old", cache_control="max-age=10")
    http.get("/a.jpg")
    edge.put("a.jpg", b"new", cache_control="max-age=10")
    assert http.get("/a.jpg").content == b"old"
    clock.advance(11)
    answer = http.get("/a.jpg")
    assert (cache_of(answer), answer.content) == ("EXPIRED", b"new")


def test_with_the_origin_away_what_expired_is_stale(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """responses: STALE is served expired since the origin could not be contacted; 521 where there is nothing to serve."""
    edge.put("a.jpg", BODY, cache_control="max-age=10")
    http.get("/a.jpg")
    edge.origin.is_reachable = False
    assert cache_of(http.get("/a.jpg")) == "HIT"
    clock.advance(11)
    answer = http.get("/a.jpg")
    assert (cache_of(answer), answer.content) == ("STALE", BODY)
    assert http.get("/b.jpg").status_code == http.get("/b.tgs").status_code == 521


def test_stale_while_revalidate_answers_updating_and_renews_behind_it(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """revalidation: with stale-while-revalidate requests get UPDATING or HIT and do not wait for the origin."""
    edge.put("a.jpg", b"old", cache_control="max-age=10, stale-while-revalidate=30")
    http.get("/a.jpg")
    edge.put("a.jpg", b"new", cache_control="max-age=10, stale-while-revalidate=30")
    clock.advance(11)
    answer = http.get("/a.jpg")
    assert (cache_of(answer), answer.content) == ("UPDATING", b"old")
    answer = http.get("/a.jpg")
    assert (cache_of(answer), answer.content) == ("HIT", b"new")
    clock.advance(41)
    assert cache_of(http.get("/a.jpg")) == "REVALIDATED"


def test_an_edge_ttl_rule_overrides_what_the_origin_says(
    edge: EdgeServer, http: httpx.Client, clock: FakeClock
) -> None:
    """behaviour: the origin's headers hold unless an Edge Cache TTL rule overrides them; the header stays as it was."""
    edge.rules = Rules(edge_ttl_seconds=100)
    edge.put("a.jpg", BODY, cache_control="max-age=10")
    http.get("/a.jpg")
    clock.advance(99)
    answer = http.get("/a.jpg")
    assert (cache_of(answer), answer.headers["age"]) == ("HIT", "99")
    assert answer.headers["cache-control"] == "max-age=10"


# ── data centres ─────────────────────────────────────────────────────────────


def test_each_data_centre_has_a_cache_of_its_own(edge: EdgeServer, http: httpx.Client) -> None:
    """cache/concepts: what one data centre has, another has not."""
    edge.put("a.jpg", BODY)
    said: list[str | None] = []
    for colo in ("FRA", "AMS", "FRA"):
        edge.colo = colo
        said.append(cache_of(http.get("/a.jpg")))
    assert said == ["MISS", "MISS", "HIT"]
    assert edge.holds("a.jpg", colo="AMS")
    assert not edge.holds("a.jpg", colo="LHR")


def test_an_upper_tier_spares_the_origin_and_the_first_hit_from_it_has_no_age() -> None:
    """tiered: lower tiers ask upper ones; responses: no Age on the first request that fills a lower tier."""
    with EdgeServer(tiered=True) as edge, httpx.Client(base_url=edge.url) as http:
        edge.put("a.jpg", BODY)
        http.get("/a.jpg")
        edge.colo = "AMS"
        answer = http.get("/a.jpg")
        assert cache_of(answer) == "HIT"
        assert "age" not in answer.headers
        assert http.get("/a.jpg").headers["age"] == "0"
        assert len(edge.origin_requests) == 1


def test_servers_can_share_an_origin() -> None:
    """Two addresses of one zone."""
    origin = Origin()
    origin.put("a.jpg", BODY)
    with EdgeServer(origin=origin, colo="FRA") as one, EdgeServer(origin=origin, colo="AMS") as two:
        assert httpx.get(f"{one.url}/a.jpg").content == httpx.get(f"{two.url}/a.jpg").content == BODY
        assert len(origin.requests) == 2


def test_host_and_query_are_part_of_the_caches_key(edge: EdgeServer, http: httpx.Client) -> None:
    """cache/how-to/cache-keys: the default key has the host and the query."""
    edge.put("a.jpg", BODY)
    http.get("/a.jpg")
    assert cache_of(http.get("/a.jpg", headers={"host": "other.example"})) == "MISS"
    assert cache_of(http.get("/a.jpg?v=2")) == "MISS"
    assert cache_of(http.get("/a.jpg")) == "HIT"


def test_a_purge_forgets_everywhere(edge: EdgeServer, http: httpx.Client) -> None:
    """cache/how-to/purge-cache: one file, or all."""
    edge.put("a b.jpg", BODY)
    edge.put("c.jpg", BODY)
    for key in ("a b", "c"):
        http.get(f"/{key}.jpg")
    edge.purge("a b.jpg")
    assert [cache_of(http.get(f"/{key}.jpg")) for key in ("a b", "c")] == ["MISS", "HIT"]
    edge.purge()
    assert cache_of(http.get("/c.jpg")) == "MISS"


def test_a_range_is_a_part_of_the_whole(edge: EdgeServer, http: httpx.Client) -> None:
    """cache/concepts/cache-behavior: ranges of what is cached are served as 206."""
    edge.put("a.jpg", BODY)
    part = http.get("/a.jpg", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, BODY[10:20])
    assert http.get("/a.jpg", headers={"range": "bytes=179190-"}).content == BODY[179190:]
    assert edge.requests[0].headers["range"] == "bytes=10-19"


def test_a_viewer_who_has_it_gets_no_bytes(edge: EdgeServer, http: httpx.Client) -> None:
    """RFC 9110, section 13.1.2: If-None-Match with the ETag that it still has is 304."""
    edge.put("a.jpg", BODY)
    etag = http.get("/a.jpg").headers["etag"]
    same = http.get("/a.jpg", headers={"if-none-match": etag})
    assert (same.status_code, same.content, cache_of(same)) == (304, b"", "HIT")
    assert http.get("/a.jpg", headers={"if-none-match": '"other"'}).content == BODY


# ── faults and gates ─────────────────────────────────────────────────────────


def test_faults_answer_otherwise_and_are_used_up(edge: EdgeServer, http: httpx.Client) -> None:
    edge.put("a.jpg", BODY)
    edge.fail(
        Fault(status=429, retry_after=3, key="a.jpg"),
        Fault(status=302, headers={"Location": "https://elsewhere/a.jpg"}, method="GET"),
        Fault(hides_cache=True),
        Fault(cache_status="UNKNOWN", colo="LHR", delay_seconds=0.01),
        Fault(evicts=True),
        Fault(status=500, key="other.jpg", times=2),
    )
    limited = http.get("/a.jpg")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
    assert cache_of(limited) is None
    assert http.get("/a.jpg").headers["location"] == "https://elsewhere/a.jpg"
    assert cache_of(http.get("/a.jpg")) is None
    elsewhere = http.get("/a.jpg")
    assert cache_of(elsewhere) == "UNKNOWN"
    assert elsewhere.headers["cf-ray"].endswith("-LHR")
    assert [cache_of(http.get("/a.jpg")) for _ in range(2)] == ["HIT", "MISS"]
    assert http.get("/other.jpg").status_code == 500
    assert [fault.times for fault in edge.pending_faults] == [1]


def test_a_body_can_be_cut_and_a_connection_reset(edge: EdgeServer, http: httpx.Client) -> None:
    edge.put("a.jpg", BODY)
    edge.fail(Fault(cut_after_bytes=1000), Fault(reset=True))
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            http.get("/a.jpg")
    assert http.get("/a.jpg").content == BODY


def test_a_gate_holds_requests_until_a_test_has_looked(edge: EdgeServer) -> None:
    edge.put("a.jpg", BODY)
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(httpx.get(f"{edge.url}/a.jpg"))) for _ in range(2)
    ]
    with edge.gate() as gate:
        for thread in threads:
            thread.start()
        gate.wait_for(2)
        assert (gate.arrived, edge.requests) == (2, [])
        with pytest.raises(TimeoutError, match="2 of 3"):
            gate.wait_for(3, timeout_seconds=0.01)
        gate.open()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_post_is_not_for_a_cache(edge: EdgeServer, http: httpx.Client) -> None:
    assert http.post("/a.jpg").status_code == 405


@pytest.mark.parametrize("colo", ["fra", "FRAX", ""])
def test_a_colo_is_three_capitals(colo: str) -> None:
    with pytest.raises(ValueError, match="three capitals"):
        EdgeServer(colo=colo)


def test_bad_faults_are_refused() -> None:
    for bad in ({"times": 0}, {"status": 99}, {"delay_seconds": -1}):
        with pytest.raises(ValueError, match="must be"):
            Fault(**bad)  # type: ignore[arg-type]


def test_a_server_is_started_once_and_has_no_address_before() -> None:
    server = EdgeServer()
    with pytest.raises(RuntimeError, match="enter it first"):
        server.url  # noqa: B018
    with server, pytest.raises(RuntimeError, match="started once"):
        server.start()


@pytest.mark.anyio
async def test_the_source_is_the_bucket_behind_the_edge(edge: EdgeServer) -> None:
    """What a target is told of an object there is what the edge will serve."""
    edge.put("a.jpg", BODY)
    source = edge.source()
    info = await source.head("a.jpg")
    async with source.open("a.jpg") as reader:
        assert await reader.read() == BODY
        assert b"".join([chunk async for chunk in reader]) == BODY
    assert (info.size, info.content_type) == (len(BODY), "image/jpeg")
    assert info.etag is not None
    assert source.url("a.jpg") is None
