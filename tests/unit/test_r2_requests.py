"""S3 requests look as R2 wants them."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from prewarmkit.errors import ConfigurationError
from prewarmkit.r2.bodies import chunks_of
from prewarmkit.r2.headers import conditions, content_type_header, metadata_headers, range_header
from prewarmkit.r2.naming import base_url, encode_key, endpoint_url
from prewarmkit.r2.requests import Bucket

BUCKET = Bucket("media", "https://abc.r2.cloudflarestorage.com")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"account_id": "0123abc"}, "https://0123abc.r2.cloudflarestorage.com"),
        ({"account_id": "0123abc", "jurisdiction": "eu"}, "https://0123abc.eu.r2.cloudflarestorage.com"),
        ({"account_id": "a", "jurisdiction": "fedramp"}, "https://a.fedramp.r2.cloudflarestorage.com"),
        ({"endpoint": "http://127.0.0.1:9000/"}, "http://127.0.0.1:9000"),
        ({"endpoint": "https://Example.COM:443"}, "https://example.com"),
        ({"endpoint": "http://[::1]:80/storage/v1/s3/"}, "http://[::1]/storage/v1/s3"),
    ],
)
def test_the_endpoint_has_one_spelling(given: dict[str, str], expected: str) -> None:
    """Jurisdictions as in Cloudflare's docs, r2/reference/data-location."""
    arguments = {"account_id": None, "jurisdiction": None, "endpoint": None, **given}
    assert endpoint_url(**arguments) == expected


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, "account_id"),
        ({"account_id": "a", "endpoint": "http://h"}, "endpoint"),
        ({"account_id": "a/b"}, "account_id"),
        ({"account_id": "a", "jurisdiction": "EU"}, "jurisdiction"),
        ({"endpoint": "http://h", "jurisdiction": "eu"}, "jurisdiction"),
        ({"endpoint": "h:9000"}, "endpoint"),
        ({"endpoint": "http://user:pa55@h"}, "endpoint"),
        ({"endpoint": "http://h/?x=1"}, "endpoint"),
        ({"endpoint": "http://h:port"}, "endpoint"),
        ({"endpoint": "s3://AKID:pa55@bucket"}, "endpoint"),
        ({"endpoint": "AKID:pa55@h"}, "endpoint"),
        ({"endpoint": "https://AKID:pa55/w0rd@h"}, "endpoint"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_by_name(given: dict[str, str], names: str) -> None:
    arguments = {"account_id": None, "jurisdiction": None, "endpoint": None, **given}
    with pytest.raises(ConfigurationError, match=names) as caught:
        endpoint_url(**arguments)
    assert "pa55" not in f"{caught.value} {caught.value.__context__}"


def test_a_public_base_is_held_to_the_same() -> None:
    assert base_url("https://cdn.example.com/m/", "public_base_url") == "https://cdn.example.com/m"
    with pytest.raises(ConfigurationError, match="public_base_url"):
        base_url("cdn.example.com", "public_base_url")


@pytest.mark.parametrize("name", ["", "a", "a/b", "a b", "-a", "a" * 300, "é" * 4])
def test_a_bucket_name_that_breaks_a_url_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="bucket"):
        Bucket(name, "https://h")


def test_addressing_by_path_and_by_host() -> None:
    assert BUCKET.url("a/b c") == "https://abc.r2.cloudflarestorage.com/media/a/b%20c"
    virtual = Bucket("media", "http://127.0.0.1.nip.io:9000", is_virtual=True)
    assert virtual.url("k") == "http://media.127.0.0.1.nip.io:9000/k"
    assert virtual.own_url() == "http://media.127.0.0.1.nip.io:9000/"
    assert BUCKET.own_url() == "https://abc.r2.cloudflarestorage.com/media"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a/b", "a/b"),
        ("a//b/../c", "a//b/../c"),
        ("~-._", "~-._"),
        ("a b+c", "a%20b%2Bc"),
        ("100%2F?#&=", "100%252F%3F%23%26%3D"),
        ("ü€😀", "%C3%BC%E2%82%AC%F0%9F%98%80"),
        ("\x00\r\n", "%00%0D%0A"),
    ],
)
def test_a_key_is_encoded_once_and_never_normalised(key: str, expected: str) -> None:
    assert encode_key(key) == expected


@pytest.mark.parametrize("key", ["", "x" * 1025, "ü" * 513, "\ud800"])
def test_a_key_that_cannot_be_is_refused(key: str) -> None:
    """1 to 1,024 bytes of UTF-8: Cloudflare's docs, r2/platform/limits."""
    with pytest.raises(ValueError, match="key"):
        encode_key(key)


@pytest.mark.parametrize(
    ("given", "expected"),
    [((0, 0), "bytes=0-0"), ((5, None), "bytes=5-"), ((None, 7), "bytes=-7"), ((1, 2), "bytes=1-2")],
)
def test_ranges(given: tuple[int | None, int | None], expected: str) -> None:
    assert range_header(given) == expected


@pytest.mark.parametrize("given", [(None, None), (None, 0), (-1, 5), (5, 4)])
def test_an_impossible_range_is_refused(given: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match="range"):
        range_header(given)


def test_metadata_can_hold_any_text_and_break_out_of_nothing() -> None:
    """Non-ASCII by RFC 2047, as R2 codes it: Cloudflare's docs, r2/reference/unicode-interoperability."""
    headers = dict(
        metadata_headers({"Plain": "a b", "uni": "ü", "evil": "a\r\nx: 1", "pad": " x ", "word": "=?x?="})
    )
    assert headers["x-amz-meta-plain"] == "a b"
    for name in ("uni", "evil", "pad", "word"):
        assert headers[f"x-amz-meta-{name}"].startswith("=?utf-8?B?")
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    for bad in ({"a b": "x"}, {"a\r\n": "x"}, {"A": "1", "a": "2"}, {"a": "\ud800"}):
        with pytest.raises(ValueError, match="metadata"):
            metadata_headers(bad)


def test_conditions_are_quoted() -> None:
    assert dict(conditions("abc", "*")) == {"if-match": '"abc"', "if-none-match": "*"}
    assert dict(conditions('W/"abc"', None)) == {"if-match": 'W/"abc"'}
    with pytest.raises(ValueError, match="if_match"):
        conditions("a\r\nb", None)
    with pytest.raises(ValueError, match="content_type"):
        content_type_header("image/png\r\nx: 1")


def test_a_list_query_is_encoded() -> None:
    draft = BUCKET.list_page("a/ü&", delimiter="/", start_after="k+", token="t=/", limit=7)
    assert draft.url.partition("?")[2].split("&") == [
        "continuation-token=t%3D%2F",
        "delimiter=%2F",
        "encoding-type=url",
        "list-type=2",
        "max-keys=7",
        "prefix=a%2F%C3%BC%26",
        "start-after=k%2B",
    ]


def test_complete_is_xml_whatever_the_etags_hold() -> None:
    body = BUCKET.complete_upload("k", "id", ['a"<&', "b"]).body
    assert isinstance(body, bytes)
    assert b"&lt;&amp;" in body
    assert body.count(b"<PartNumber>") == 2


def test_a_draft_hides_what_could_sign() -> None:
    draft = BUCKET.put("k", b"x", content_length=1, headers=(("x-amz-meta-a", "private"),))
    assert "private" not in repr(draft)


def test_a_bucket_elsewhere_names_its_region() -> None:
    assert BUCKET.create("auto").body == b""
    body = BUCKET.create("eu-west-1").body
    assert isinstance(body, bytes)
    assert b"<LocationConstraint>eu-west-1</LocationConstraint>" in body


def test_the_payload_is_hashed_only_where_nothing_else_protects_it() -> None:
    assert BUCKET.put("k", b"x", content_length=1).payload_hash is None
    plain = Bucket("media", "http://127.0.0.1")
    assert plain.put("k", b"", content_length=0).payload_hash == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize("metadata", [{1: "x"}, {"a": 1}, {"a": None}, {"a": b"x"}])
def test_metadata_that_is_no_text_is_refused_by_name(metadata: Any) -> None:
    with pytest.raises(TypeError, match="metadata"):
        metadata_headers(metadata)


EVIL = "x\r\nHost: evil/../?a=b&c#d\x00"


def test_nothing_that_a_caller_or_a_service_gives_leaves_its_place() -> None:
    """Keys, upload ids and ETags end up percent-encoded or escaped, other texts encoded or refused."""
    headers = metadata_headers({"m": EVIL})
    drafts = [
        BUCKET.put(EVIL, b"", content_length=0, headers=headers),
        BUCKET.start_upload(EVIL, headers),
        BUCKET.upload_part(EVIL, EVIL, 1, b"", lambda: chunks_of(b""), b""),
        BUCKET.list_parts(EVIL, EVIL),
        BUCKET.complete_upload(EVIL, EVIL, ["</ETag>"]),
        BUCKET.abort_upload(EVIL, EVIL),
        BUCKET.copy("to", BUCKET.source(EVIL), source_if_match='"e"'),
        BUCKET.copy_part(EVIL, EVIL, 1, BUCKET.source(EVIL), (0, 1)),
        BUCKET.delete(EVIL),
    ]
    for draft in drafts:
        sent = [draft.url, *itertools.chain.from_iterable((*draft.signed, *draft.unsigned))]
        assert all(text.isascii() and text.isprintable() for text in sent)
        path = urlsplit(draft.url).path
        assert path in {"/media/" + quote(EVIL, safe="/"), "/media/to"}
        assert dict(parse_qsl(urlsplit(draft.url).query)).get("uploadId", EVIL) == EVIL
    for call in (
        lambda: content_type_header(EVIL),
        lambda: conditions(EVIL, None),
        lambda: conditions(None, EVIL),
        lambda: BUCKET.copy("to", "s", source_if_match=EVIL),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
