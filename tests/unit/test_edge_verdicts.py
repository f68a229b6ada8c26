"""The pure half of `EdgeTarget`: addresses, what answers say, until when, what that means, and failures."""

from __future__ import annotations

import pytest

from prewarmkit.errors import (
    ConfigurationError,
    MediaUnfit,
    RateLimited,
    RouteUnfit,
    TargetDown,
    TargetFailure,
    Transient,
)
from prewarmkit.targets.edge.answers import Answer
from prewarmkit.targets.edge.failures import DEFAULT_RETRY_AFTER, failure_of
from prewarmkit.targets.edge.life import DEFAULT_SECONDS, left_of, stated_life
from prewarmkit.targets.edge.places import Place, places_of
from prewarmkit.targets.edge.verdicts import Verdict, Wanted, WeakReason, mismatch, verdict_of

BASE = "https://media.example.com"
DATE = "Wed, 01 Jan 2025 00:00:00 GMT"


def answer(status: int = 200, /, **headers: str) -> Answer:
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Answer.of("GET", status, pairs, status_header="cf-cache-status")


# ── where ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("videos/intro.mp4", "videos/intro.mp4"),
        ("a b+c?d#e%f&g.jpg", "a%20b%2Bc%3Fd%23e%25f%26g.jpg"),
        ("фото/ü.jpg", "%D1%84%D0%BE%D1%82%D0%BE/%C3%BC.jpg"),
        ("/a//b", "/a//b"),
        ("back\\slash\n", "back%5Cslash%0A"),
        ("http://other.example/x", "http%3A//other.example/x"),
        ("@user:pw", "%40user%3Apw"),
        ("...", "..."),
    ],
)
def test_a_key_is_quoted_into_the_url(key: str, path: str) -> None:
    """No key leads out of the base URL, into its query, or to another host."""
    assert places_of(BASE, ())[0].url(key) == f"{BASE}/{path}"


@pytest.mark.parametrize("key", ["..", "a/../b", "./a", "a/.", "x" * 1025])
def test_a_key_that_no_url_keeps_is_unfit(key: str) -> None:
    """Clients and caches take dots for steps, written as %2E too."""
    with pytest.raises(MediaUnfit):
        Place(BASE).url(key)


@pytest.mark.parametrize(
    "bad",
    [
        "https://user:hunter2@media.example.com",
        "https://hunter2@media.example.com/x",
        "https://media.example.com/?token=hunter2",
        "https://media.example.com/#hunter2",
        "hunter2@media.example.com",
        "https://media.example.com:hunter2",
        "https://media.example.com/a b?hunter2",
        "https:///hunter2?x",
    ],
)
def test_a_base_url_with_a_secret_is_refused_without_repeating_it(bad: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        places_of(bad, ())
    links = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert not [link for link in links if link is not None and "hunter2" in f"{link} {link!r}"]


@pytest.mark.parametrize(
    "bad",
    ["", "media.example.com", "ftp://media.example.com", "https://", "https://h/../x", "https://ü.example", [], 7, None, [7], b"x"],
)  # fmt: skip
def test_what_is_no_base_url_is_refused(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        places_of(bad, ())


@pytest.mark.parametrize(
    "bad",
    ["media.example.com", "", "1.2.3", "1.2.3.4:", "1.2.3.4:0", "1.2.3.4:65536", "[::1", "[::1]x", "::1:x", 7, "1.2.3.4/x"],
)  # fmt: skip
def test_what_is_no_address_is_refused(bad: object) -> None:
    with pytest.raises(ConfigurationError, match="addresses"):
        places_of(BASE, [bad])


def test_every_base_url_is_asked_at_every_address() -> None:
    """The viewer's URL stays; host and TLS name are the base URL's."""
    places = places_of(
        [f"{BASE}/media/", "http://other.example:8080", f"{BASE}/media"], ["192.0.2.7", "[2001:DB8::7]:8443"]
    )
    assert [place.asked_url("a.jpg") for place in places] == [
        "https://192.0.2.7/media/a.jpg",
        "https://[2001:db8::7]:8443/media/a.jpg",
        "http://192.0.2.7/a.jpg",
        "http://[2001:db8::7]:8443/a.jpg",
    ]
    assert places[0].url("a.jpg") == f"{BASE}/media/a.jpg"
    assert [(place.host, place.tls_name) for place in places[::2]] == [
        ("media.example.com", "media.example.com"),
        ("other.example:8080", None),
    ]
    assert str(places[1]) == "https://media.example.com at [2001:db8::7]:8443"


# ── what an answer says ──────────────────────────────────────────────────────


def test_an_answers_head_is_read_whatever_its_spelling() -> None:
    read = answer(
        CF_Cache_Status="Hit", CF_Ray="8f2a3b4c5d6e7f80-FRA", Age="12", ETag='W/"abc"', Content_Length="5"
    )
    assert (read.cache, read.colo, read.age, read.etag, read.length) == ("HIT", "FRA", 12, "abc", 5)


def test_what_makes_no_sense_in_a_head_is_not_said() -> None:
    """It is stored and shown, and anybody may have written it."""
    read = answer(cf_cache_status="<script>", cf_ray="FRA", age="-1", etag='""', content_length="x")
    assert (read.cache, read.colo, read.age, read.etag, read.length) == (None,) * 5
    assert answer(age="9" * 30).age is None


# ── until when ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"cache_control": "public, max-age=60"}, 60),
        ({"cache_control": "max-age=60, s-maxage=600"}, 600),
        ({"cache_control": 'MAX-AGE="60"'}, 60),
        ({"cache_control": "max-age=60", "cdn_cache_control": "max-age=90"}, 90),
        ({"cache_control": "max-age=60", "expires": "Wed, 01 Jan 2025 01:00:00 GMT", "date": DATE}, 60),
        ({"expires": "Wed, 01 Jan 2025 01:00:00 GMT", "date": DATE}, 3600),
        ({"expires": "Wed, 01 Jan 2020 01:00:00 GMT", "date": DATE}, 0),
        ({"expires": "0", "date": DATE}, None),
        ({"expires": "Wed, 01 Jan 2025 01:00:00 GMT"}, None),
        ({"cache_control": "max-age=-5"}, None),
        ({"cache_control": "max-age=²"}, None),
        ({"cache_control": "public"}, None),
        ({}, None),
    ],
)
def test_the_life_is_what_a_shared_cache_goes_by(headers: dict[str, str], seconds: float | None) -> None:
    """Cloudflare's documentation, "Default cache behavior": max-age before Expires."""
    assert stated_life(answer(**headers)) == seconds


def test_a_huge_max_age_makes_no_date_that_nobody_can_keep() -> None:
    assert stated_life(answer(cache_control=f"max-age={'9' * 40}")) == 10 * 365 * 86400


def test_the_age_is_taken_off_the_life() -> None:
    hit = answer(cf_cache_status="HIT", age="40", cache_control="max-age=100")
    assert left_of(hit, None) == 60
    assert left_of(hit, 1000) == 960
    assert left_of(answer(cf_cache_status="HIT", age="40"), None) == DEFAULT_SECONDS - 40
    assert left_of(answer(cf_cache_status="MISS", cache_control="max-age=100"), None) == 100


def test_what_is_being_renewed_lives_anew() -> None:
    """Cloudflare cache responses: UPDATING is expired by its age, and the origin updates it in the background."""
    for age in ("100", "101", "140"):
        assert left_of(answer(cf_cache_status="UPDATING", age=age, cache_control="max-age=100"), None) == 100


def test_an_age_beyond_the_life_is_a_rules_doing() -> None:
    """An Edge TTL rule does not show in the headers: it is looked at again after as long as they say."""
    assert left_of(answer(cf_cache_status="HIT", age="5000", cache_control="max-age=100"), None) == 100
    assert left_of(answer(cf_cache_status="HIT", age="101", cache_control="max-age=100"), None) == -1


# ── what that means ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("HIT", Verdict.WARM),
        ("REVALIDATED", Verdict.WARM),
        ("UPDATING", Verdict.WARM),
        ("MISS", Verdict.FILLED),
        ("EXPIRED", Verdict.FILLED),
        ("STALE", WeakReason.STALE),
        ("DYNAMIC", WeakReason.INELIGIBLE_EXTENSION),
        ("BYPASS", WeakReason.ORIGIN_FORBIDS),
        ("NONE", WeakReason.NOT_CLOUDFLARE_CACHE),
        ("UNKNOWN", WeakReason.NOT_CLOUDFLARE_CACHE),
        ("NONE/UNKNOWN", WeakReason.NOT_CLOUDFLARE_CACHE),
        ("hit", Verdict.WARM),
        ("", WeakReason.NOT_CLOUDFLARE_CACHE),
    ],
)
def test_each_word_of_the_cache_has_its_verdict(said: str, verdict: Verdict | WeakReason) -> None:
    """Cloudflare's documentation, "Cloudflare cache responses": what each status means."""
    assert verdict_of(answer(cf_cache_status=said)) is verdict


def test_only_what_configuration_must_mend_is_final() -> None:
    assert {reason.value for reason in WeakReason if reason.is_final} == {
        "ineligible_extension",
        "origin_forbids",
        "not_cloudflare_cache",
    }


@pytest.mark.parametrize(
    ("headers", "wrong"),
    [
        ({}, None),
        ({"etag": '"abc"', "content_length": "5"}, None),
        ({"etag": 'W/"abc"'}, None),
        ({"etag": '"abd"'}, "ETag"),
        ({"content_length": "4"}, "4 bytes instead of 5"),
    ],
)
def test_an_answer_must_be_what_the_source_has(headers: dict[str, str], wrong: str | None) -> None:
    found = mismatch(answer(**headers), Wanted(5, "abc"))
    assert found is None if wrong is None else wrong in (found or "")


# ── failures ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("status", "headers", "failure"),
    [
        (400, {}, MediaUnfit),
        (401, {}, TargetDown),
        (403, {}, Transient),
        (403, {"cf_mitigated": "challenge"}, TargetDown),
        (404, {"cf_cache_status": "HIT"}, Transient),
        (410, {}, Transient),
        (405, {}, RouteUnfit),
        (408, {}, Transient),
        (414, {}, MediaUnfit),
        (451, {}, MediaUnfit),
        (204, {}, RouteUnfit),
        (206, {}, RouteUnfit),
        (304, {}, RouteUnfit),
        (301, {"location": "https://other.example/a.jpg"}, TargetDown),
        (302, {"location": "https://login.example/?next=hunter2"}, RouteUnfit),
        (302, {"location": "/elsewhere"}, RouteUnfit),
        (302, {"location": "https://[bad"}, RouteUnfit),
        (302, {"location": "https://media.example.com/a.jpg"}, RouteUnfit),
        (500, {}, Transient),
        (502, {}, Transient),
        (503, {}, Transient),
        (504, {}, Transient),
        (520, {}, Transient),
        (521, {}, TargetDown),
        (522, {}, Transient),
        (523, {}, TargetDown),
        (524, {}, Transient),
        (525, {}, TargetDown),
        (526, {}, TargetDown),
        (530, {}, TargetDown),
    ],
)
def test_each_status_has_its_failure(
    status: int, headers: dict[str, str], failure: type[TargetFailure]
) -> None:
    """By whose fault it is; the meaning of 52x is from Cloudflare's "5xx errors"."""
    raised = failure_of(answer(status, **headers), key="a.jpg", place=Place(BASE))
    assert isinstance(raised, failure)
    assert "a.jpg" in str(raised)
    assert "hunter2" not in f"{raised} {raised!r}"


def test_a_redirect_of_every_key_says_what_the_base_url_should_be() -> None:
    """Always Use HTTPS: the host would never get warm under http."""
    moved = answer(301, location="https://media.example.com/a.jpg?secret")
    raised = failure_of(moved, key="a.jpg", place=Place("http://media.example.com"))
    assert isinstance(raised, TargetDown)
    assert "https://media.example.com: make that the base_url" in str(raised)
    assert "secret" not in str(raised)


@pytest.mark.parametrize(
    ("status", "value", "seconds", "scope"),
    [
        (429, "7", 7, "target"),
        (429, None, DEFAULT_RETRY_AFTER, "target"),
        (429, "0", 1, "target"),
        (429, "soon", DEFAULT_RETRY_AFTER, "target"),
        (429, "Wed, 01 Jan 2025 00:00:30 GMT", 30, "target"),
        (429, "9" * 20, 86400, "target"),
        (503, "7", 7, "medium"),
    ],
)
def test_being_told_to_wait_spends_no_attempt(
    status: int, value: str | None, seconds: float, scope: str
) -> None:
    """A 503 may be about one object, and holds that one only."""
    headers = {"date": DATE} if value is None else {"date": DATE, "retry_after": value}
    raised = failure_of(answer(status, **headers), key="a.jpg", place=Place(BASE))
    assert isinstance(raised, RateLimited)
    assert (raised.retry_after, raised.scope, raised.spends_attempt) == (seconds, scope, False)
