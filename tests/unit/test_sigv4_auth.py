"""`SigV4Auth` signs what httpx sends."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from prewarmkit import Credentials, CredentialsMissing, SigV4Signer
from prewarmkit.testing.clock import FakeClock
from prewarmkit.transports import SigV4Auth

STATIC = Credentials("AKID", "secret", "token")
ADDED = ("authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token")


class Server:
    """Keeps the requests that arrive, with their bodies."""

    def __init__(self, **headers: str) -> None:
        self.requests: list[httpx.Request] = []
        self.headers = headers

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, headers=self.headers)

    async def asynchronous(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self(request)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def sign_as_arrived(signer: SigV4Signer, request: httpx.Request, names: tuple[str, ...]) -> dict[str, str]:
    """What the signature must be, judged by the request that arrived."""
    headers = [(name, request.headers[name]) for name in names]
    url = f"{request.url.scheme}://{request.headers['host']}{request.url.raw_path.decode()}"
    return signer.sign(request.method, url, headers)


def arrived(request: httpx.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in ADDED if name in request.headers}


def test_a_synchronous_client_signs(clock: FakeClock) -> None:
    server = Server()
    signer = SigV4Signer(STATIC, clock=clock)
    with httpx.Client(auth=SigV4Auth(signer), transport=httpx.MockTransport(server)) as client:
        client.get("https://Host.example:443/média/a b?list-type=2&prefix=é+", headers={"Range": "bytes=0-9"})
        client.put(
            "http://127.0.0.1:8333/b/k", content=b"x", headers={"content-type": "a/b", "x-amz-acl": "p"}
        )
    get, put = server.requests
    assert arrived(get) == sign_as_arrived(signer, get, ())
    assert get.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert arrived(put) == sign_as_arrived(signer, put, ("content-type", "x-amz-acl"))


@pytest.mark.anyio
async def test_an_asynchronous_client_signs_and_renews(clock: FakeClock) -> None:
    class Provider:
        async def get(self) -> Credentials:
            return STATIC

    server = Server()
    signer = SigV4Signer(Provider(), clock=clock)
    transport = httpx.MockTransport(server.asynchronous)
    async with httpx.AsyncClient(auth=SigV4Auth(signer), transport=transport) as client:
        await client.get("https://host.example/b/k")
    assert arrived(server.requests[0]) == SigV4Signer(STATIC, clock=clock).sign(
        "GET", "https://host.example/b/k"
    )


def test_a_synchronous_client_cannot_ask_a_provider() -> None:
    class Provider:
        async def get(self) -> Credentials:
            raise NotImplementedError

    auth = SigV4Auth(SigV4Signer(Provider()))
    with (
        httpx.Client(auth=auth, transport=httpx.MockTransport(Server())) as client,
        pytest.raises(CredentialsMissing, match="refresh"),
    ):
        client.get("https://host.example/")


@pytest.mark.anyio
async def test_another_service_hashes_the_body_of_a_stream_too(clock: FakeClock) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"Action="
        yield b"ListUsers"

    server = Server()
    signer = SigV4Signer(STATIC, service="iam", region="us-east-1", clock=clock)
    transport = httpx.MockTransport(server.asynchronous)
    async with httpx.AsyncClient(auth=SigV4Auth(signer), transport=transport) as client:
        await client.post("https://iam.example/", content=body())
    request = server.requests[0]
    hashed = hashlib.sha256(b"Action=ListUsers").hexdigest()
    assert arrived(request) == signer.sign("POST", "https://iam.example/", payload_hash=hashed)
    assert request.content == b"Action=ListUsers"


def test_a_payload_hash_in_the_headers_is_signed(clock: FakeClock) -> None:
    server = Server()
    signer = SigV4Signer(STATIC, clock=clock)
    hashed = hashlib.sha256(b"x").hexdigest()
    with httpx.Client(auth=SigV4Auth(signer), transport=httpx.MockTransport(server)) as client:
        client.put("https://host.example/b/k", content=b"x", headers={"x-amz-content-sha256": hashed})
    assert arrived(server.requests[0]) == signer.sign("PUT", "https://host.example/b/k", payload_hash=hashed)


def test_a_request_that_is_sent_again_is_signed_again(clock: FakeClock) -> None:
    server = Server()
    with httpx.Client(
        auth=SigV4Auth(SigV4Signer(STATIC, clock=clock)), transport=httpx.MockTransport(server)
    ) as client:
        request = client.build_request("GET", "https://host.example/b/k")
        client.send(request)
        first = arrived(request)
        clock.advance(60)
        client.send(request)
    fresh = SigV4Signer(STATIC, clock=clock).sign("GET", "https://host.example/b/k")
    assert arrived(request) == fresh != first


def test_the_servers_clock_is_learnt_from_the_answers(clock: FakeClock) -> None:
    date = datetime.fromtimestamp(clock.now + 600, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    for headers, skew in (({"Date": date}, 600), ({"Date": date, "Age": "1"}, 0), ({}, 0)):
        signer = SigV4Signer(STATIC, clock=clock)
        transport = httpx.MockTransport(Server(**headers))
        with httpx.Client(auth=SigV4Auth(signer), transport=transport) as client:
            client.get("https://host.example/b/k")
        assert signer.clock_skew_seconds == skew


@pytest.mark.parametrize("wrong", [None, STATIC, "signer"])
def test_it_needs_a_signer(wrong: Any) -> None:
    with pytest.raises(TypeError, match="SigV4Signer"):
        SigV4Auth(wrong)
