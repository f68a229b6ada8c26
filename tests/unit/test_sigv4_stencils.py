"""What a signer remembers of a second never changes a signature: whatever came before, the result is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prewarmkit import UNSIGNED_PAYLOAD, Credentials, SigningError, SigV4Signer
from prewarmkit.sigv4.canonical import EMPTY_SHA256
from prewarmkit.sigv4.outline import outline
from prewarmkit.testing.clock import FakeClock

# A few of each, so that shapes meet again, and neighbours that must not be taken for one another.
methods = st.sampled_from(["GET", "get", "PUT", "HEAD"])
origins = st.sampled_from(
    [
        "https://a.test",
        "https://A.test",
        "https://a.test:443",
        "https://a.test:8443",
        "http://a.test",
        "https://b.test",
    ]
)
paths = st.sampled_from(
    ["", "/", "/k", "/k/../l", "/k//l/", "/./k", "/ü", "/%C3%BC", "/a%2Fb", "/a b", "/k?list-type=2&prefix=b%20",
     "/k?acl", "?x=/y", "/+", "/%", "/k.mp4", "/..k/.l"]
)  # fmt: skip
values = st.sampled_from(
    ["bytes=0-9", "bytes=0-10", " a  b ", "a b", "", "%s", "100%", "ü", "\ta", "x" * 70, "a,b"]
)
names = st.sampled_from(
    ["range", "Range", "if-match", "content-type", "x-amz-meta-a", "user-agent", "host", "zz", "a", "x%sy"]
)
headers = st.one_of(
    st.dictionaries(names, values, max_size=4),
    st.lists(st.tuples(names, values), max_size=4),
    st.lists(st.tuples(names, values), max_size=4).map(tuple),
)
payloads = st.sampled_from(
    [None, UNSIGNED_PAYLOAD, EMPTY_SHA256, hashlib.sha256(b"a").hexdigest(), hashlib.sha256(b"b").hexdigest()]
)
lifetimes = st.sampled_from([None, 1, 60, 60.0, timedelta(minutes=1), 3600])
requests = st.tuples(methods, origins, paths, headers, payloads, lifetimes, st.integers(0, 2))
CREDENTIALS = {
    "s3": Credentials("AKID", "secret"),
    "with a token": Credentials("AKID", "secret", "to%sken/=="),
}


def made(service: str, credentials: Credentials, clock: FakeClock, **options: Any) -> SigV4Signer:
    return SigV4Signer(credentials, service=service, clock=clock, **options)


def signed(signer: SigV4Signer, request: tuple[Any, ...]) -> Any:
    method, origin, path, fields, payload_hash, expires, _ = request
    if expires is None:
        return signer.sign(method, origin + path, fields, payload_hash=payload_hash)
    return signer.presign(method, origin + path, headers=fields, payload_hash=payload_hash, expires=expires)


@pytest.mark.parametrize("credentials", CREDENTIALS.values(), ids=list(CREDENTIALS))
@pytest.mark.parametrize("service", ["s3", "execute-api"])
@pytest.mark.parametrize("sign_session_token", [True, False])
@settings(max_examples=150, deadline=None)
@given(drawn=st.lists(requests, min_size=2, max_size=12))
def test_a_signer_with_a_past_signs_as_one_without(
    service: str, credentials: Credentials, drawn: list[tuple[Any, ...]], *, sign_session_token: bool
) -> None:
    """The same requests twice over, in two or three seconds; each against a signer that never saw another."""
    clock = FakeClock()
    old = made(service, credentials, clock, sign_session_token=sign_session_token)
    for request in [*drawn, *drawn]:
        clock.now = 1_800_000_000.5 + request[-1]
        new = made(service, credentials, clock, sign_session_token=sign_session_token)
        assert signed(old, request) == signed(new, request)


def test_a_plain_request_is_looked_up_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the test above would compare one way with itself."""
    signer = SigV4Signer(CREDENTIALS["s3"], clock=FakeClock())
    calls: list[Callable[[], object]] = [
        lambda: signer.sign("GET", "https://a.test/k", {"Range": "bytes=0-9", "If-Match": '"e"'}),
        lambda: signer.sign("GET", "https://a.test/k", (("range", "bytes=0-9"),)),
        lambda: signer.sign("PUT", "https://a.test/k", payload_hash=hashlib.sha256(b"a").hexdigest()),
        lambda: signer.presign("GET", "https://a.test/k"),
    ]
    first = [call() for call in calls]

    def anew(*_arguments: object) -> None:
        raise AssertionError("brought into canonical form again")

    monkeypatch.setattr(f"{outline.__module__}._outline_anew", anew)
    assert [call() for call in calls] == first


@pytest.mark.parametrize("path", ["/a b", "/a b/../c", "/a  b", "/a ", "/ "])
@pytest.mark.parametrize("fields", [{}, {"range": "bytes=0-9"}])
def test_a_blank_in_a_path_is_no_end_of_it(path: str, fields: dict[str, str]) -> None:
    """Path and values are asked about in one go, joined by blanks."""
    for service in ("s3", "execute-api"):
        signer = made(service, CREDENTIALS["s3"], FakeClock())
        signer.sign("GET", "https://a.test/k", fields)
        alone = made(service, CREDENTIALS["s3"], FakeClock())
        assert signer.sign("GET", f"https://a.test{path}", fields) == alone.sign(
            "GET", f"https://a.test{path}", fields
        )


def test_true_is_no_lifetime_though_it_equals_one() -> None:
    signer = SigV4Signer(CREDENTIALS["s3"], clock=FakeClock())
    signer.presign("GET", "https://a.test/k", expires=1)
    for expires in (True, None):
        with pytest.raises(SigningError, match="expires"):
            signer.presign("GET", "https://a.test/k", expires=expires)  # type: ignore[arg-type] # what is tested


def test_bad_input_is_named_after_good_input_of_the_same_shape() -> None:
    signer = SigV4Signer(CREDENTIALS["s3"], clock=FakeClock())
    url, fields = "https://a.test/k", {"range": "bytes=0-9"}
    signer.sign("GET", url, fields)
    wrong: Any
    for wrong, named in (
        ({"range": "a\nb"}, "line break"),
        ({"range": 5}, "str values"),
        ({"range": None}, "str values"),
        ((("range",),), "headers"),
        (5, "headers"),
    ):
        with pytest.raises(SigningError, match=named):
            signer.sign("GET", url, wrong)
    for wrong in ("", "x", b"a", 5, list[str]()):
        with pytest.raises(SigningError, match="payload_hash"):
            signer.sign("GET", url, fields, payload_hash=wrong)
    for wrong in (list[str](), 5, "G T"):
        with pytest.raises(SigningError, match="method"):
            signer.sign(wrong, url, fields)
    with pytest.raises(SigningError, match="url"):
        signer.sign("GET", "https://a.test/k\n", fields)


def test_what_is_remembered_is_bounded() -> None:
    """A stranger who may choose header names must not fill the memory."""
    signer = SigV4Signer(CREDENTIALS["s3"], clock=FakeClock())
    for number in range(1000):
        signer.sign("GET", "https://a.test/k", {f"x-{number}": "1"})
    assert signer._moment is not None  # pyright: ignore[reportPrivateUsage] - what is kept shows nowhere else
    assert len(signer._moment.stencils) <= 256  # pyright: ignore[reportPrivateUsage]


class Padded(dict[str, str]):
    """A mapping whose values are not what its items say, as those that translate."""

    def items(self) -> Any:
        return [(name, value.strip("<>")) for name, value in super().items()]


NEIGHBOURS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a repeated field": ({"headers": (("range", "1"),)}, {"headers": (("range", "1"), ("range", "2"))}),
    "names that differ in case": (
        {"headers": {"b": "1", "a": "2", "B": "3"}},
        {"headers": {"b": "1", "a": "2", "B": "4"}},
    ),
    "an iterator": ({"headers": iter([("b", "1"), ("a", "2")])}, {}),
    "an unsigned field first": (
        {"headers": {"user-agent": "x", "b": "1", "a": "2"}},
        {"headers": {"user-agent": "x", "b": "1", "a": "3"}},
    ),
    "a dict that translates": ({"headers": {"range": "1"}}, {"headers": Padded(range="<1>")}),
    "no path": ({"url": "https://a.test/k"}, {"url": "https://a.testx"}),
    "a method with a percent sign": ({"method": "a%sb"}, {"method": "a%sb", "url": "https://a.test/%6B"}),
}


@pytest.mark.parametrize(("first", "second"), NEIGHBOURS.values(), ids=list(NEIGHBOURS))
def test_a_request_is_not_taken_for_its_neighbour(first: dict[str, Any], second: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"method": "GET", "url": "https://a.test/k", "headers": ()}
    signer, fresh = (SigV4Signer(CREDENTIALS["s3"], clock=FakeClock()) for _ in range(2))
    signer.sign(**plain | first)
    assert signer.sign(**plain | second) == fresh.sign(**plain | second)


@pytest.mark.parametrize("path", ["/k", "/%6B"])
def test_a_method_with_a_percent_sign_is_written_as_it_is(path: str) -> None:
    signer = SigV4Signer(CREDENTIALS["s3"], clock=FakeClock())
    for _ in range(2):
        assert signer.canonical_request("A%s%%", f"https://a.test{path}").startswith("A%S%%\n/k\n\nhost:")
        assert signer.canonical_request("A%%", f"https://a.test{path}").startswith("A%%\n/k\n\nhost:")


def test_a_payload_hash_is_checked_after_a_good_one_of_the_same_shape() -> None:
    signer = SigV4Signer(CREDENTIALS["s3"], clock=FakeClock())
    signer.sign("PUT", "https://a.test/k", payload_hash="ab" * 32)
    for wrong in ("ab", "AB" * 32, "ab" * 32 + "\n"):
        with pytest.raises(SigningError, match="payload_hash"):
            signer.sign("PUT", "https://a.test/k", payload_hash=wrong)
