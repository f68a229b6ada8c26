"""Signatures agree with botocore's for requests that nobody thought of."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote

import pytest
from attrs import frozen
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prewarmkit import Credentials, SigV4Signer

SHORT, LONG = 400, 20_000
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

awkward = st.sampled_from(
    [*"/.+% ~-_!*'()&=?#:;@$,[]", "..", "//", "/../", "%2F", "é", "e\u0301", "日本", "🎬"]
)
texts = st.lists(st.one_of(awkward, st.characters(exclude_categories=["Cs"])), max_size=12).map("".join)
field_values = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\t"), max_size=20)
names = st.sampled_from(
    ["Range", "content-type", "Content-MD5", "if-match", "x-amz-meta-a", "X-Amz-Meta-B", "x-amz-acl", "cf-x"]
)


@frozen
class Case:
    """One request, and who signs it when."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    credentials: Credentials
    region: str
    at: datetime

    @property
    def url(self) -> str:
        return f"https://bucket.example.com:8443{self.path}" + (f"?{self.query}" if self.query else "")

    def botocore(self) -> tuple[AWSRequest, BotocoreCredentials]:
        request = AWSRequest(method=self.method, url=self.url, data=self.body)
        for name, value in self.headers:
            request.headers.add_header(name, value)
        own = self.credentials
        return request, BotocoreCredentials(own.access_key_id, own.secret_access_key, own.session_token)


@st.composite
def queries(draw: st.DrawFn, *, unique: bool) -> str:
    pairs = draw(
        st.lists(
            st.tuples(texts.filter(bool), st.none() | texts),
            max_size=5,
            unique_by=(lambda pair: pair[0]) if unique else None,
        )
    )
    encoded = [(quote(name, safe=""), value) for name, value in pairs]
    return "&".join(name if value is None else f"{name}={quote(value, safe='')}" for name, value in encoded)


@st.composite
def cases(draw: st.DrawFn, *, presigned: bool = False) -> Case:
    seconds = draw(st.integers(0, 4_102_444_800))
    credentials = Credentials(
        draw(st.sampled_from(["AKIDEXAMPLE", "0123456789abcdef0123456789abcdef"])),
        draw(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)),
        draw(
            st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
        ),
    )
    return Case(
        method=draw(st.sampled_from(["GET", "PUT", "HEAD", "DELETE", "POST"])),
        path="/" + quote(draw(texts), safe="/"),
        query=draw(queries(unique=presigned)),
        headers=draw(st.lists(st.tuples(names, field_values), max_size=5)),
        body=b"" if presigned else draw(st.binary(max_size=20)),
        credentials=credentials,
        region=draw(st.sampled_from(["auto", "us-east-1", "eu-central-1"])),
        at=datetime.fromtimestamp(seconds, UTC),
    )


@contextmanager
def at_that_time(case: Case) -> Generator[None, None, None]:
    with mock.patch("botocore.auth.get_current_datetime", return_value=case.at.replace(tzinfo=None)):
        yield


def check_header(case: Case, service: str) -> None:
    request, credentials = case.botocore()
    auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, case.region)
    with at_that_time(case):
        auth.add_auth(request)
    signer = SigV4Signer(case.credentials, region=case.region, service=service)
    payload_hash = hashlib.sha256(case.body).hexdigest()
    added = signer.sign(case.method, case.url, case.headers, payload_hash=payload_hash, signed_at=case.at)
    for name, value in added.items():
        assert request.headers[name] == value


def check_query(case: Case, service: str) -> None:
    request, credentials = case.botocore()
    auth = (S3SigV4QueryAuth if service == "s3" else SigV4QueryAuth)(
        credentials, service, case.region, expires=60
    )
    with at_that_time(case):
        auth.add_auth(request)
    signer = SigV4Signer(case.credentials, region=case.region, service=service)
    ours = signer.presign(case.method, case.url, headers=case.headers, expires=60, signed_at=case.at)
    theirs = str(request.url)
    assert ours.rsplit("&X-Amz-Signature=", 1)[1] == theirs.rsplit("&X-Amz-Signature=", 1)[1]
    assert ours.split("?")[0] == theirs.split("?", maxsplit=1)[0]


@pytest.mark.parametrize("service", ["s3", "service"])
@settings(relaxed, max_examples=SHORT)
@given(case=cases())
def test_header_signatures_agree_with_botocore(service: str, case: Case) -> None:
    check_header(case, service)


@pytest.mark.parametrize("service", ["s3", "service"])
@settings(relaxed, max_examples=SHORT)
@given(case=cases(presigned=True))
def test_presigned_urls_agree_with_botocore(service: str, case: Case) -> None:
    """Without repeated query names: botocore keeps only the first of them here."""
    check_query(case, service)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["s3", "service"])
@settings(relaxed, max_examples=LONG)
@given(case=cases())
def test_twenty_thousand_header_signatures_agree_with_botocore(service: str, case: Case) -> None:
    check_header(case, service)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["s3", "service"])
@settings(relaxed, max_examples=LONG)
@given(case=cases(presigned=True))
def test_twenty_thousand_presigned_urls_agree_with_botocore(service: str, case: Case) -> None:
    check_query(case, service)
