"""Published signatures, byte for byte."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from prewarmkit import UNSIGNED_PAYLOAD, Credentials, SigV4Signer
from prewarmkit.sigv4.canonical import EMPTY_SHA256
from prewarmkit.sigv4.keys import KeyScope, derive_signing_key

SUITE: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "sigv4-suite.json").read_text(encoding="utf-8")
)["cases"]


class SuiteCase:
    """One case of the suite, read into the arguments of a signer."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        context = case["context"]
        credentials = context["credentials"]
        head, _, self.body = str(case["request"]).partition("\n\n")
        first, *lines = head.rstrip("\n").split("\n")
        self.method, target = first.split(" ", 1)
        self.url = "https://example.amazonaws.com" + target.removesuffix(" HTTP/1.1")
        self.headers: list[tuple[str, str]] = []
        for line in lines:
            if line.startswith(" "):  # a folded header: HTTP says that it reads as a space
                name, value = self.headers.pop()
                self.headers.append((name, f"{value} {line.strip()}"))
            else:
                name, _, value = line.partition(":")
                self.headers.append((name, value))
        self.signer = SigV4Signer(
            Credentials(
                credentials["access_key_id"], credentials["secret_access_key"], credentials.get("token")
            ),
            region=context["region"],
            service=context["service"],
            normalize_path=context["normalize"],
            sign_session_token=not context.get("omit_session_token", False),
        )
        self.signed_at = datetime.fromisoformat(context["timestamp"])
        self.expires = int(context["expiration_in_seconds"])
        self.payload_hash = hashlib.sha256(self.body.encode()).hexdigest()
        self.announced = [("x-amz-content-sha256", self.payload_hash)] if context["sign_body"] else []


@pytest.fixture(params=SUITE, ids=lambda case: str(case["name"]))
def suite(request: pytest.FixtureRequest) -> SuiteCase:
    return SuiteCase(request.param)


def test_the_suite_is_whole() -> None:
    assert len(SUITE) == 38


def test_header_signing_gives_the_suites_signature(suite: SuiteCase) -> None:
    expected = suite.case["header"]
    headers = suite.headers + suite.announced
    arguments = (suite.method, suite.url, headers)
    signed_at, payload_hash = suite.signed_at, suite.payload_hash
    canonical = suite.signer.canonical_request(*arguments, payload_hash=payload_hash, signed_at=signed_at)
    assert canonical == expected["canonical-request"]
    to_sign = suite.signer.string_to_sign(*arguments, payload_hash=payload_hash, signed_at=signed_at)
    assert to_sign == expected["string-to-sign"]
    added = suite.signer.sign(*arguments, payload_hash=payload_hash, signed_at=signed_at)
    assert added["authorization"].endswith(f"Signature={expected['signature']}")
    # What the suite's request gained is what we add.
    signed_request = str(expected["signed-request"])
    for name, value in added.items():
        assert f"\n{name}:{value}\n".lower() in signed_request.lower()


def test_presigning_gives_the_suites_signature(suite: SuiteCase) -> None:
    expected = suite.case["query"]
    arguments = (suite.method, suite.url, suite.headers)
    canonical = suite.signer.canonical_request(
        *arguments, payload_hash=suite.payload_hash, signed_at=suite.signed_at, expires=suite.expires
    )
    assert canonical == expected["canonical-request"]
    to_sign = suite.signer.string_to_sign(
        *arguments, payload_hash=suite.payload_hash, signed_at=suite.signed_at, expires=suite.expires
    )
    assert to_sign == expected["string-to-sign"]
    url = suite.signer.presign(
        suite.method,
        suite.url,
        headers=suite.headers,
        payload_hash=suite.payload_hash,
        signed_at=suite.signed_at,
        expires=suite.expires,
    )
    query = parse_qs(urlsplit(url).query, keep_blank_values=True)
    assert query["X-Amz-Signature"] == [expected["signature"]]
    target = str(expected["signed-request"]).split("\n")[0].split(" ", 1)[1].removesuffix(" HTTP/1.1")
    assert query == parse_qs(urlsplit("https://host" + target).query, keep_blank_values=True)


DOCUMENTED_AT = datetime(2013, 5, 24, tzinfo=UTC)
BUCKET = "https://examplebucket.s3.amazonaws.com"


@pytest.fixture
def documented() -> SigV4Signer:
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    return SigV4Signer(credentials, region="us-east-1")


@pytest.mark.parametrize(
    ("method", "target", "headers", "body", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {"Range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        ("GET", "/?lifecycle", {}, b"", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_the_examples_of_the_s3_documentation_come_out(
    documented: SigV4Signer, method: str, target: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    """Source: "Authenticating Requests: Using the Authorization Header", Amazon S3 API reference."""
    payload_hash = hashlib.sha256(body).hexdigest()
    added = documented.sign(
        method, BUCKET + target, headers, payload_hash=payload_hash, signed_at=DOCUMENTED_AT
    )
    assert added["authorization"].endswith(f", Signature={signature}")
    assert added["x-amz-content-sha256"] == payload_hash
    assert added["x-amz-date"] == "20130524T000000Z"


def test_an_encoded_dollar_sign_signs_like_the_documented_bare_one(documented: SigV4Signer) -> None:
    def sign(path: str) -> dict[str, str]:
        return documented.sign("PUT", BUCKET + path, signed_at=DOCUMENTED_AT)

    assert sign("/test%24file.text") == sign("/test$file.text")


def test_the_presigned_url_of_the_s3_documentation_comes_out(documented: SigV4Signer) -> None:
    """Source: "Authenticating Requests: Using Query Parameters", Amazon S3 API reference."""
    url = documented.presign("GET", f"{BUCKET}/test.txt", expires=86400, signed_at=DOCUMENTED_AT)
    assert url == (
        f"{BUCKET}/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


@pytest.fixture
def general() -> Credentials:
    return Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


def test_the_iam_example_comes_out_key_and_signature(general: Credentials) -> None:
    """Source: the IAM ListUsers example of the AWS General Reference, also in smithy-rs ``sign/v4.rs``."""
    scope = KeyScope(general.secret_digest, "20150830", "us-east-1", "iam")
    key = derive_signing_key(general, scope).key
    assert key.hex() == "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"
    added = SigV4Signer(general, region="us-east-1", service="iam").sign(
        "GET",
        "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
        {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        signed_at=datetime(2015, 8, 30, 12, 36, tzinfo=UTC),
    )
    assert added == {
        "authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        "x-amz-date": "20150830T123600Z",
    }


def test_a_plus_in_a_query_is_a_plus(general: Credentials) -> None:
    """Source: the case ``get-query-plus`` that smithy-rs adds to the suite."""
    signer = SigV4Signer(general, region="us-east-1", service="service")
    at = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    added = signer.sign("GET", "https://example.amazonaws.com/?c+d", signed_at=at)
    assert added["authorization"].endswith("ae684ce3aadc299e3ac7d9216fcc039c7edf40dea57cf5b3005821dd2f176654")
    url = signer.presign("GET", "https://example.amazonaws.com/?c+d", signed_at=at)
    assert url.endswith("0eab864b028f58edbf5290cbe84acc5db34e5f92786a96fe01434e515f9342b8")


def test_the_default_payload_is_unsigned_for_s3_and_empty_elsewhere(
    documented: SigV4Signer, general: Credentials
) -> None:
    assert documented.sign("GET", BUCKET)["x-amz-content-sha256"] == UNSIGNED_PAYLOAD == "UNSIGNED-PAYLOAD"
    iam = SigV4Signer(general, region="us-east-1", service="iam")
    assert "x-amz-content-sha256" not in iam.sign("GET", "https://iam.amazonaws.com/")
    assert iam.canonical_request("GET", "https://iam.amazonaws.com/").endswith(EMPTY_SHA256)
    assert hashlib.sha256().hexdigest() == EMPTY_SHA256
