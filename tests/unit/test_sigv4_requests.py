"""What a signer makes of a request, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from prewarmkit import ConfigurationError, Credentials, SigningError, SigV4Signer

URL = "https://acct.r2.cloudflarestorage.com/media/a.mp4"
AT = 1_700_000_000
SECRET = "tell-nobody-0123456789"


@pytest.fixture
def signer() -> SigV4Signer:
    return SigV4Signer(Credentials("AKID", SECRET), clock=lambda: float(AT))


@pytest.fixture
def general() -> SigV4Signer:
    return SigV4Signer(Credentials("AKID", SECRET), service="service", clock=lambda: float(AT))


def path_of(signer: SigV4Signer, url: str) -> str:
    return signer.canonical_request("GET", url).split("\n")[1]


def query_of(signer: SigV4Signer, url: str) -> str:
    return signer.canonical_request("GET", url).split("\n")[2]


def field_lines(canonical: str) -> list[str]:
    return canonical.split("\n")[3:-3]


# ── paths ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("", "/"),
        ("/", "/"),
        ("//", "//"),
        ("/media//a/../b/./c", "/media//a/../b/./c"),
        ("/media/%C3%A9.png", "/media/%C3%A9.png"),
        ("/media/é.png", "/media/%C3%A9.png"),
        ("/media/%c3%a9.png", "/media/%C3%A9.png"),
        ("/media/a b", "/media/a%20b"),
        ("/media/a+b", "/media/a%2Bb"),
        ("/media/%41~", "/media/A~"),
        ("/media/%7E", "/media/~"),
        ("/media/100%", "/media/100%25"),
        ("/media/100%25", "/media/100%25"),
        ("/media/%ff%00", "/media/%FF%00"),
        ("/media/(a)!'*", "/media/%28a%29%21%27%2A"),
        ("/media/🎬/😀", "/media/%F0%9F%8E%AC/%F0%9F%98%80"),
    ],
)
def test_s3_paths_are_encoded_once_and_never_normalised(
    signer: SigV4Signer, path: str, canonical: str
) -> None:
    assert path_of(signer, "https://host" + path) == canonical


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("", "/"),
        ("//a//b//", "/a/b/"),
        ("/a/./b/../c", "/a/c"),
        ("/../..", "/"),
        ("/a/..", "/"),
        ("/a%20b", "/a%2520b"),
        ("/%C3%A9", "/%25C3%25A9"),
    ],
)
def test_other_services_encode_twice_and_normalise(general: SigV4Signer, path: str, canonical: str) -> None:
    assert path_of(general, "https://host" + path) == canonical


def test_both_rules_can_be_overridden() -> None:
    credentials = Credentials("AKID", SECRET)
    once = SigV4Signer(credentials, service="service", double_encode=False, normalize_path=False)
    assert path_of(once, "https://host/a%20b/../c") == "/a%20b/../c"
    twice = SigV4Signer(credentials, double_encode=True, normalize_path=True)
    assert path_of(twice, "https://host/a%20b/../c%20d") == "/c%2520d"


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("", ""),
        ("acl", "acl="),
        ("b=2&a=1", "a=1&b=2"),
        ("a=2&a=1&a", "a=&a=1&a=2"),
        ("a=x=y", "a=x%3Dy"),
        ("k=a%20b+c", "k=a%20b%2Bc"),
        ("prefix=ü/", "prefix=%C3%BC%2F"),
        ("a-b=1&a=2", "a=2&a-b=1"),
        ("%41=1&&B=2&", "A=1&B=2"),
        ("=v", "=v"),
    ],
)
def test_queries_are_sorted_by_encoded_name_then_value(
    signer: SigV4Signer, query: str, canonical: str
) -> None:
    assert query_of(signer, f"https://host/?{query}") == canonical


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Example.COM/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("http://example.com:80/", "example.com"),
        ("http://example.com:443/", "example.com:443"),
        ("HTTP://127.0.0.1:8333", "127.0.0.1:8333"),
        ("http://[::1]:8333/b", "[::1]:8333"),
        ("https://my_minio:/x", "my_minio"),
    ],
)
def test_the_host_is_signed_as_http_clients_send_it(signer: SigV4Signer, url: str, host: str) -> None:
    assert field_lines(signer.canonical_request("GET", url))[0] == f"host:{host}"


def test_a_host_header_takes_the_place_of_the_urls(signer: SigV4Signer) -> None:
    lines = field_lines(signer.canonical_request("GET", URL, {"Host": "bucket.example"}))
    assert lines[0] == "host:bucket.example"
    assert sum(line.startswith("host:") for line in lines) == 1


# ── headers ──────────────────────────────────────────────────────────────────


def test_headers_are_folded_trimmed_joined_and_sorted(signer: SigV4Signer) -> None:
    headers = [("X-B", "  2 \t  3 "), ("x-a", ""), ("X-b", "1"), ("x-u", "\u00a0é  é ")]
    assert field_lines(signer.canonical_request("GET", URL, headers)) == [
        "host:acct.r2.cloudflarestorage.com",
        "x-a:",
        "x-amz-content-sha256:UNSIGNED-PAYLOAD",
        "x-amz-date:20231114T221320Z",
        "x-b:2 3,1",
        "x-u:\u00a0é é",
    ]


def test_a_mapping_pairs_and_an_iterator_sign_alike(signer: SigV4Signer) -> None:
    mapping = {"Range": "bytes=0-9", "Content-Type": "video/mp4"}
    signed = signer.sign("GET", URL, mapping)
    assert signed == signer.sign("GET", URL, list(mapping.items()))
    assert signed == signer.sign("GET", URL, iter(mapping.items()))
    assert "SignedHeaders=content-type;host;range;x-amz-content-sha256;x-amz-date" in signed["authorization"]
    assert signer.sign("GET", URL, iter(())) == signer.sign("GET", URL)


def test_what_proxies_change_is_never_signed(signer: SigV4Signer) -> None:
    """Cloudflare rewrites Accept-Encoding: mhart/aws4fetch#39, supabase/storage#729."""
    changed: dict[str, str] = dict.fromkeys(
        (
            "Accept-Encoding",
            "Authorization",
            "Connection",
            "Expect",
            "Proxy-Authorization",
            "Transfer-Encoding",
            "User-Agent",
            "X-Amzn-Trace-Id",
        ),
        "x",
    )
    assert signer.sign("GET", URL, changed) == signer.sign("GET", URL)


def test_the_method_is_signed_in_capitals(signer: SigV4Signer) -> None:
    assert signer.sign("get", URL) == signer.sign("GET", URL)


def test_a_payload_hash_may_come_as_argument_or_as_header(signer: SigV4Signer, general: SigV4Signer) -> None:
    hashed = "ab" * 32
    for one in (signer, general):
        by_header = one.canonical_request("PUT", URL, {"x-amz-content-sha256": hashed})
        assert by_header.endswith("\n" + hashed)
        both = one.canonical_request("PUT", URL, {"x-amz-content-sha256": hashed}, payload_hash=hashed)
        assert both == by_header
        with pytest.raises(SigningError, match="payload_hash"):
            one.sign("PUT", URL, {"x-amz-content-sha256": hashed}, payload_hash="cd" * 32)


def test_only_s3_is_told_the_payload_hash_in_a_header(signer: SigV4Signer, general: SigV4Signer) -> None:
    hashed = "ab" * 32
    for _ in range(2):
        assert signer.sign("PUT", URL, payload_hash=hashed)["x-amz-content-sha256"] == hashed
        assert set(general.sign("PUT", URL, payload_hash=hashed)) == {"authorization", "x-amz-date"}


def test_a_session_token_is_sent_and_signed_or_only_sent() -> None:
    credentials = Credentials("AKID", SECRET, "to/ken==")
    signed = SigV4Signer(credentials).sign("GET", URL)
    assert signed["x-amz-security-token"] == "to/ken=="
    assert "x-amz-security-token" in signed["authorization"]
    unsigned = SigV4Signer(credentials, sign_session_token=False).sign("GET", URL)
    assert unsigned["x-amz-security-token"] == "to/ken=="
    assert "x-amz-security-token" not in unsigned["authorization"]


# ── presigned URLs ───────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("", "/"),
        ("/media/a%2Bb(1).mp4", "/media/a%2Bb(1).mp4"),
        ("/media//x/../y", "/media//x/../y"),
        ("/media/ü b%", "/media/%C3%BC%20b%25"),
    ],
)
def test_a_presigned_path_is_the_callers_but_for_what_cannot_be_sent(
    signer: SigV4Signer, path: str, sent: str
) -> None:
    assert urlsplit(signer.presign("GET", "https://host" + path)).path == sent


def test_a_presigned_path_that_is_encoded_twice_stays_as_given(general: SigV4Signer) -> None:
    """The service encodes again what it receives, so that nothing may be encoded here."""
    assert urlsplit(general.presign("GET", "https://host/100%/a%20b")).path == "/100%/a%20b"


def test_a_presigned_url_keeps_its_query_and_extra_headers(signer: SigV4Signer) -> None:
    url = signer.presign("PUT", URL + "?x-id=PutObject&a&a=1", headers={"Content-Type": "video/mp4"})
    query = urlsplit(url).query
    assert query.startswith("X-Amz-Algorithm=AWS4-HMAC-SHA256&")
    assert "&a=&a=1&x-id=PutObject&X-Amz-Signature=" in query
    assert "X-Amz-SignedHeaders=content-type%3Bhost" in query


@pytest.mark.parametrize("expires", [1, 604_800, 60.0, timedelta(minutes=1)])
def test_expires_takes_seconds_or_a_timedelta(signer: SigV4Signer, expires: float | timedelta) -> None:
    seconds = int(expires.total_seconds() if isinstance(expires, timedelta) else expires)
    assert f"&X-Amz-Expires={seconds}&" in signer.presign("GET", URL, expires=expires)


@pytest.mark.parametrize(
    "expires", [0, -1, 604_801, 1.5, float("nan"), float("inf"), True, "60", None, timedelta(days=8)]
)
def test_expires_out_of_bounds_is_refused(signer: SigV4Signer, expires: Any) -> None:
    with pytest.raises(SigningError, match="expires"):
        signer.presign("GET", URL, expires=expires)


# ── time ─────────────────────────────────────────────────────────────────────


def test_signed_at_takes_any_aware_datetime_or_posix_time(signer: SigV4Signer) -> None:
    moment = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    east = moment.astimezone(timezone(timedelta(hours=9)))
    signed = signer.sign("GET", URL)
    assert signed["x-amz-date"] == "20231114T221320Z"
    for at in (moment, east, AT, AT + 0.999):
        assert signer.sign("GET", URL, signed_at=at) == signed


@pytest.mark.parametrize(
    "signed_at",
    [
        datetime(2024, 1, 1),  # noqa: DTZ001 - naive on purpose
        -1,
        float("nan"),
        float("inf"),
        1e12,
        True,
        "20240101T000000Z",
    ],
)
def test_a_time_that_is_none_is_refused(signer: SigV4Signer, signed_at: Any) -> None:
    for call in (signer.sign, signer.presign):
        with pytest.raises(SigningError, match="signed_at"):
            call("GET", URL, signed_at=signed_at)


# ── what is refused ──────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/media/a.mp4",
        "media/a.mp4",
        "//host/a",
        "ftp://host/a",
        "https://",
        "https:///a",
        "https://:443/a",
        "https://user:password@host/a",
        "https://host:port/a",
        "https://ho st/a",
        "https://hôst/a",
        "https://host/a#b",
        "https://host/a\nb",
        "https://host/a\r\nx: y",
        "https://host/?a=\tb",
        "https://host/a?x#y",
        "https://host/\udc80",
        "https://host/?a=\udc80",
        "https://host/?X-Amz-Signature=abc",
        "https://host/?x-amz-credential=abc",
        None,
        b"https://host/a",
    ],
)
def test_a_url_that_cannot_be_signed_is_refused(signer: SigV4Signer, general: SigV4Signer, url: Any) -> None:
    for one in (signer, general):
        for call in (one.sign, one.presign, one.canonical_request):
            with pytest.raises(SigningError) as caught:
                call("GET", url)
            assert "password" not in str(caught.value).replace("user name or password", "")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-a": "1\r\nx-b: 2"},
        {"x-a": "1\n"},
        {"x-a": "1\n 2"},
        {"x-a": "\x00"},
        {"x-a\n": "1"},
        {"x a": "1"},
        {"": "1"},
        {"x-ü": "1"},
        {"x-a": 1},
        {"x-a": b"1"},
        {b"x-a": "1"},
        {"x-a": "\ud800"},
        {"x-amz-date": "20240101T000000Z"},
        {"X-Amz-Security-Token": "t"},
        [("x-a",)],
        ["x-a: 1"],
        "x-a: 1",
        b"x-a",
        7,
    ],
)
def test_headers_that_cannot_be_signed_are_refused(signer: SigV4Signer, headers: Any) -> None:
    for call in (
        lambda: signer.sign("GET", URL, headers),
        lambda: signer.presign("GET", URL, headers=headers),
    ):
        with pytest.raises(SigningError, match=r"headers|surrogate"):
            call()


@pytest.mark.parametrize("method", ["", "GE T", "GET\n", None, b"GET", 1])
def test_a_method_that_is_none_is_refused(signer: SigV4Signer, method: Any) -> None:
    with pytest.raises(SigningError, match="method"):
        signer.sign(method, URL)


@pytest.mark.parametrize("payload_hash", ["", "abc", "AB" * 32, b"ab" * 32, 5, "unsigned-payload"])
def test_a_payload_hash_that_is_none_is_refused(signer: SigV4Signer, payload_hash: Any) -> None:
    with pytest.raises(SigningError, match="payload_hash"):
        signer.sign("PUT", URL, payload_hash=payload_hash)


CONSTRUCTORS: list[tuple[str, Callable[[], Any]]] = [
    ("region", lambda: SigV4Signer(Credentials("A", "s"), region="")),
    ("region", lambda: SigV4Signer(Credentials("A", "s"), region="a/b")),
    ("service", lambda: SigV4Signer(Credentials("A", "s"), service="s3\n")),
    ("key_cache", lambda: SigV4Signer(Credentials("A", "s"), key_cache={})),  # type: ignore[arg-type] # wrong on purpose
    ("credentials", lambda: SigV4Signer(("A", "s"))),  # type: ignore[arg-type] # wrong on purpose
    ("credentials", lambda: SigV4Signer({"A": "s"})),  # type: ignore[arg-type] # wrong on purpose
]


@pytest.mark.parametrize(("argument", "construct"), CONSTRUCTORS)
def test_a_signer_refuses_wrong_arguments_at_once(argument: str, construct: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        construct()


def test_errors_and_repr_show_no_secret(signer: SigV4Signer) -> None:
    assert SECRET not in repr(signer)
    presigned = signer.presign("GET", URL)
    with pytest.raises(SigningError) as caught:
        signer.presign("GET", presigned)
    assert presigned.rsplit("=", 1)[1] not in str(caught.value)


def test_a_key_of_any_unicode_signs_like_its_encoded_form(signer: SigV4Signer) -> None:
    key = "видео/日本 語/a+b%2F?#&=/../x~"
    encoded = quote(key, safe="/")
    assert path_of(signer, f"https://host/b/{encoded}") == f"/b/{encoded}"
