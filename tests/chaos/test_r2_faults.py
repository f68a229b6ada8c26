"""R2Client behind a proxy that breaks things: right bytes or a typed error, whatever breaks, wherever.

A matrix of fault × request of the operation × operation × once or always × transport, against SeaweedFS. After each case
the store is asked directly, without R2Client's own reading code, and the gauges of the transport and of the
proxy stand at 0.

The short form takes a part of the matrix that is always the same one, and in which every fault and every request
of every operation is met over every transport. Left out of it are lies that nothing could show: a HEAD with another length or ETag.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar, Literal
from xml.etree import ElementTree as ET

import anyio
import anyio.lowlevel
import httpx
import pytest
from attrs import frozen

from prewarmkit import ObjectInfo, R2Client, RetryPolicy, SigV4Signer
from prewarmkit.errors import R2Error, TransportError
from prewarmkit.testing import Fault, FaultProxy
from prewarmkit.testing.faults import Ending, ProxiedRequest, Stage
from prewarmkit.testing.s3 import SeaweedServer
from prewarmkit.transports import DirectTransport, FastTransport

pytestmark = pytest.mark.anyio

KIB, MIB = 1024, 1024 * 1024
BUCKET = "chaos"
STALL_SECONDS = 0.2
CASE_SECONDS = 8
LISTED = [f"listed/{name}" for name in ("a b", "a+b", "c/d", "é", *map(str, range(20)))]

dice = random.Random(20260101)
OLD, CONTENT = dice.randbytes(1000), dice.randbytes(300 * KIB)
FILE, PARTS = dice.randbytes(1536 * KIB), dice.randbytes(5 * MIB + 100 * KIB)
numbers = itertools.count()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# ── the transports ───────────────────────────────────────────────────────────

FLAVOURS: Mapping[str, tuple[str, type[DirectTransport | FastTransport]]] = {
    "asyncio-direct": ("asyncio", DirectTransport),
    "trio-direct": ("trio", DirectTransport),
    "asyncio-fast": ("asyncio", FastTransport),
}


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(flavour: str) -> str:
    return FLAVOURS[flavour][0]


# ── the store, seen directly ─────────────────────────────────────────────────


class Store:
    """The bucket by presigned requests of httpx: the independent witness."""

    def __init__(self, server: SeaweedServer, http: httpx.Client) -> None:
        self.endpoint, self.credentials = server.endpoint, server.credentials
        self._signer = SigV4Signer(server.credentials)
        self._http = http

    def ask(self, method: str, path: str, content: bytes = b"") -> httpx.Response:
        return self._http.request(
            method, self._signer.presign(method, f"{self.endpoint}/{BUCKET}{path}"), content=content
        )

    def put(self, key: str, content: bytes) -> None:
        assert self.ask("PUT", f"/{key}", content).status_code == 200

    def get(self, key: str) -> bytes | None:
        answer = self.ask("GET", f"/{key}")
        assert answer.status_code in {200, 404}
        return answer.content if answer.status_code == 200 else None

    def uploads(self, key: str) -> list[str]:
        """The keys of uploads that were begun and not ended."""
        answer = self.ask("GET", "?uploads=")
        assert answer.status_code == 200
        found = [
            node.text or "" for node in ET.fromstring(answer.content).iter() if node.tag.endswith("}Key")
        ]
        return [name for name in found if name.strip("/") == key]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with SeaweedServer() as server, httpx.Client(verify=False) as http:
        store = Store(server, http)
        assert store.ask("PUT", "").status_code == 200
        for key in LISTED:
            assert store.ask("PUT", "/" + key.replace(" ", "%20").replace("+", "%2B")).status_code == 200
        store.put("after", OLD)
        yield store


# ── operations ───────────────────────────────────────────────────────────────


@frozen
class Phase:
    """One of the requests that an operation makes.

    Attributes:
        name: For the test's id.
        when: Finds it.
        up: Bytes of its body.
        down: Bytes of its answer's body, at least.
        tells: Headers of the answer that the client can hold to something.
        is_xml: The answer is XML.
        has_length: The answer has a length that could be missing.
    """

    name: str
    when: Callable[[ProxiedRequest], bool]
    up: int = 0
    down: int = 0
    tells: frozenset[str] = frozenset()
    is_xml: bool = False
    has_length: bool = True


class Scene:
    """A client behind the proxy, and a key of the case's own.

    Attributes:
        must_succeed: The fault is one that the client mends by itself.
    """

    def __init__(self, store: Store, proxy: FaultProxy, r2: R2Client, tmp_path: Path) -> None:
        self.store, self.proxy, self.r2, self.tmp_path = store, proxy, r2, tmp_path
        self.key = f"case-{next(numbers)}"
        self.must_succeed = False


class Operation(ABC):
    """What is done, and what must hold after it."""

    name: ClassVar[str]
    phases: ClassVar[Sequence[Phase]]

    def prepare(self, scene: Scene) -> None:
        """What the store holds before."""
        scene.store.put(scene.key, CONTENT)

    @abstractmethod
    async def run(self, scene: Scene, fault: Fault) -> None:
        """Do it, and hold what it gives to the truth."""

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        """What the store must hold after; reading changes nothing."""
        assert scene.store.get(scene.key) == CONTENT


def is_method(method: str) -> Callable[[ProxiedRequest], bool]:
    return lambda request: request.method == method


def changes(fault: Fault, name: str) -> bool:
    return any(changed == name for changed, _ in fault.changes)


def holds_info(info: ObjectInfo, content: bytes, fault: Fault) -> None:
    """The facts are the object's, but for what the proxy lied about."""
    assert info.size == len(content)
    if not changes(fault, "etag"):
        assert info.etag == md5(content)


GET_TELLS = frozenset({"content-length", "etag", "content-range"})


class Open(Operation):
    name = "open"
    phases = (Phase("get", is_method("GET"), down=len(CONTENT), tells=GET_TELLS),)

    async def run(self, scene: Scene, fault: Fault) -> None:
        got = b""
        try:
            async with scene.r2.open(scene.key) as obj:
                async for chunk in obj:
                    got += chunk
        except (R2Error, TransportError):
            assert CONTENT.startswith(got)  # what was given before it broke is right too
            raise
        assert got == CONTENT
        holds_info(obj.info, CONTENT, fault)


class Get(Operation):
    name = "get"
    phases = (Phase("get", is_method("GET"), down=len(CONTENT), tells=GET_TELLS),)

    async def run(self, scene: Scene, fault: Fault) -> None:
        assert await scene.r2.get(scene.key) == CONTENT


class GetRange(Operation):
    name = "range"
    phases = (Phase("get", is_method("GET"), down=200 * KIB, tells=GET_TELLS),)

    async def run(self, scene: Scene, fault: Fault) -> None:
        got = await scene.r2.get(scene.key, range=(10 * KIB, 210 * KIB - 1))
        assert got == CONTENT[10 * KIB : 210 * KIB]


class Head(Operation):
    name = "head"
    phases = (Phase("head", is_method("HEAD")),)

    async def run(self, scene: Scene, fault: Fault) -> None:
        holds_info(await scene.r2.head(scene.key), CONTENT, fault)


class Put(Operation):
    """Over an object that is there: afterwards it is the old one or the new one, whole."""

    name = "put bytes"
    phases: ClassVar[Sequence[Phase]] = (
        Phase("put", is_method("PUT"), up=len(CONTENT), tells=frozenset({"etag"})),
    )
    content: ClassVar[bytes] = CONTENT

    def prepare(self, scene: Scene) -> None:
        scene.store.put(scene.key, OLD)

    async def run(self, scene: Scene, fault: Fault) -> None:
        holds_info(await scene.r2.put(scene.key, self.content), self.content, fault)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        found = scene.store.get(scene.key)
        assert found == self.content or (found == OLD and not is_done)


class PutNew(Put):
    """Where nothing is, and only then."""

    name = "put if none"

    def prepare(self, scene: Scene) -> None:
        pass

    async def run(self, scene: Scene, fault: Fault) -> None:
        holds_info(await scene.r2.put(scene.key, self.content, if_none_match="*"), self.content, fault)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        found = scene.store.get(scene.key)
        assert found == self.content or (found is None and not is_done)


class PutFile(Put):
    name = "put file"
    phases = (Phase("put", is_method("PUT"), up=len(FILE), tells=frozenset({"etag"})),)
    content = FILE

    async def run(self, scene: Scene, fault: Fault) -> None:
        path = scene.tmp_path / "file"
        path.write_bytes(FILE)
        holds_info(await scene.r2.put(scene.key, path), FILE, fault)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        # SeaweedFS keeps an empty object of an upload that ends before its first byte, unless a Content-MD5
        # came with it, which a file that is read once cannot have.
        began = [exchange.up_bytes for exchange in scene.proxy.log if exchange.request.method == "PUT"]
        if is_done or 0 not in began or scene.store.get(scene.key) != b"":
            await super().check(scene, is_done=is_done)


class PutIterator(Put):
    name = "put iterator"

    async def run(self, scene: Scene, fault: Fault) -> None:
        pieces = (CONTENT[at : at + 10_000] for at in range(0, len(CONTENT), 10_000))
        holds_info(await scene.r2.put(scene.key, pieces), CONTENT, fault)


def is_part(number: int) -> Callable[[ProxiedRequest], bool]:
    return lambda request: request.query.get("partNumber") == str(number)


class PutParts(Put):
    """Nothing is left to pay for either, unless the answer with the upload's id was lost."""

    name = "put parts"
    phases = (
        Phase("create", lambda request: "uploads" in request.query, down=100, is_xml=True),
        Phase("part 1", is_part(1), up=5 * MIB, tells=frozenset({"etag"})),
        Phase("part 2", is_part(2), up=100 * KIB, tells=frozenset({"etag"})),
        Phase(
            "complete",
            lambda request: request.method == "POST" and "uploadId" in request.query,
            up=200,
            down=100,
            is_xml=True,
        ),
    )
    content = PARTS

    async def run(self, scene: Scene, fault: Fault) -> None:
        info = await scene.r2.put(scene.key, PARTS, part_size=5 * MIB)
        assert info.size == len(PARTS)
        digests = hashlib.md5(PARTS[: 5 * MIB]).digest() + hashlib.md5(PARTS[5 * MIB :]).digest()
        assert info.etag == f"{md5(digests)}-2"

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        await super().check(scene, is_done=is_done)
        begun = [exchange for exchange in scene.proxy.log if "uploads" in exchange.request.query]
        has_lost_an_id = any(exchange.has_struck for exchange in begun)
        assert has_lost_an_id or scene.store.uploads(scene.key) == []


class List(Operation):
    name = "list"
    phases = (Phase("list", lambda request: "list-type" in request.query, down=2000, is_xml=True),)

    def prepare(self, scene: Scene) -> None:
        pass

    async def run(self, scene: Scene, fault: Fault) -> None:
        assert [info.key async for info in scene.r2.list("listed/")] == sorted(LISTED, key=str.encode)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        pass


class Delete(Operation):
    name = "delete"
    phases = (Phase("delete", is_method("DELETE"), has_length=False),)

    async def run(self, scene: Scene, fault: Fault) -> None:
        await scene.r2.delete(scene.key)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        found = scene.store.get(scene.key)
        assert found is None or (found == CONTENT and not is_done)


class Copy(Operation):
    name = "copy"
    phases = (
        Phase("look", is_method("HEAD")),
        Phase("copy", is_method("PUT"), down=100, is_xml=True),
    )

    def prepare(self, scene: Scene) -> None:
        scene.store.put(scene.key, OLD)
        scene.store.put(f"{scene.key}-source", CONTENT)

    async def run(self, scene: Scene, fault: Fault) -> None:
        info = await scene.r2.copy(f"{scene.key}-source", scene.key)
        holds_info(info, CONTENT, fault)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        assert scene.store.get(f"{scene.key}-source") == CONTENT
        found = scene.store.get(scene.key)
        assert found == CONTENT or (found == OLD and not is_done)


class PutMany(Operation):
    """One item meets the fault; each result is true of its own item."""

    name = "put_many"
    phases = (
        Phase(
            "put",
            lambda request: request.method == "PUT" and request.path.endswith("-1"),
            up=len(CONTENT),
            tells=frozenset({"etag"}),
        ),
    )

    def prepare(self, scene: Scene) -> None:
        pass

    async def run(self, scene: Scene, fault: Fault) -> None:
        keys = [f"{scene.key}-{number}" for number in range(3)]
        results = await scene.r2.put_many([(key, CONTENT) for key in keys], concurrency=2)
        assert [result.key for result in results] == keys
        assert all(result.ok for result in (results[0], results[2]))
        for result in results:
            assert result.ok or not scene.must_succeed
            found = scene.store.get(result.key)
            assert found == CONTENT or (found is None and not result.ok)
            if result.error is not None:
                assert isinstance(result.error, (R2Error, TransportError))
            else:
                assert result.info is not None
                holds_info(result.info, CONTENT, fault)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        pass  # looked at above, item by item


class DeleteMany(Operation):
    """No key is reported deleted that is there."""

    name = "delete_many"
    phases = (Phase("delete", is_method("POST"), up=200, down=100, is_xml=True),)

    def prepare(self, scene: Scene) -> None:
        for number in range(3):
            scene.store.put(f"{scene.key}-{number}", CONTENT)

    async def run(self, scene: Scene, fault: Fault) -> None:
        keys = [f"{scene.key}-{number}" for number in (0, 2, 7)]
        results = await scene.r2.delete_many(keys)
        assert [result.key for result in results] == keys
        for result in results:
            assert result.ok or not scene.must_succeed
            assert result.error is None or isinstance(result.error, (R2Error, TransportError))
            found = scene.store.get(result.key)
            assert found is None or (found == CONTENT and not result.ok)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        assert scene.store.get(f"{scene.key}-1") == CONTENT


class Download(Operation):
    """The file is there whole or not at all, and the same call again, without the fault, ends it."""

    name = "download"
    phases = (
        Phase(
            "first range",
            lambda request: (request.header("range") or "").startswith("bytes=0-"),
            down=64 * KIB,
            tells=GET_TELLS,
        ),
        Phase(
            "later range",
            lambda request: (request.header("range") or "").startswith(f"bytes={128 * KIB}-"),
            down=64 * KIB,
            tells=GET_TELLS,
        ),
    )

    async def run(self, scene: Scene, fault: Fault) -> None:
        path = scene.tmp_path / "down"
        info = await scene.r2.download(scene.key, path, concurrency=2, part_size=64 * KIB)
        assert path.read_bytes() == CONTENT
        holds_info(info, CONTENT, fault)

    async def check(self, scene: Scene, *, is_done: bool) -> None:
        path = scene.tmp_path / "down"
        assert path.exists() == is_done
        if not is_done:
            scene.proxy.clear()
            await scene.r2.download(scene.key, path, concurrency=2, part_size=64 * KIB)
            assert path.read_bytes() == CONTENT
        assert list(scene.tmp_path.iterdir()) == [path]


OPERATIONS: Sequence[Operation] = (
    *(Open(), Get(), GetRange(), Head(), Put(), PutNew(), PutFile(), PutIterator(), PutParts()),
    *(List(), Delete(), Copy(), PutMany(), DeleteMany(), Download()),
)

NOTHING = Fault(name="nothing")

# ── faults ───────────────────────────────────────────────────────────────────

Make = Callable[[Phase], Fault | None]
"""The fault for a request; ``None``: that request cannot meet it."""


def at(stage: Stage, place: Literal["start", "middle", "end"], make: Callable[[Stage, int], Fault]) -> Make:
    """A fault at one place of the wire; a head is cut in its first line for its middle."""

    def fault(phase: Phase) -> Fault | None:
        size = {"request head": 60, "answer head": 24, "request body": phase.up, "answer body": phase.down}[
            stage
        ]
        if not size:
            return None
        return make(stage, {"start": 0, "middle": size // 2, "end": size}[place])

    return fault


def always(fault: Fault) -> Make:
    return lambda _phase: fault


def if_told(fault: Fault, *names: str) -> Make:
    """A lie about a header, where the client has something to hold it to."""
    return lambda phase: fault if phase.tells.issuperset(names) else None


def if_xml(fault: Fault) -> Make:
    return lambda phase: fault if phase.is_xml else None


def stall(stage: Stage, after: int) -> Fault:
    return Fault.stall(stage, after, seconds=60 if stage.startswith("answer") else 2 * STALL_SECONDS)


def dribble(stage: Stage, after: int) -> Fault:
    piece_bytes = 12 if stage.endswith("head") else 32 * KIB
    return Fault.dribble(stage, after, piece_bytes=piece_bytes, seconds=0.002)


def _wire() -> Iterator[tuple[str, Make]]:
    stages: Sequence[Stage] = ("request head", "request body", "answer head", "answer body")
    for stage in stages:
        for name, make in (("reset", Fault.reset), ("close", Fault.close), ("stall", stall)):
            for place in ("start", "middle"):
                yield f"{name} {stage} {place}", at(stage, place, make)
        yield f"dribble {stage}", at(stage, "start", dribble)
    last = at("request body", "end", Fault.reset)
    yield "reset request body end", lambda phase: last(phase) if phase.up >= KIB else None


FAULTS: Mapping[str, Make] = {
    **dict(_wire()),
    "500 xml": always(Fault.answers(500)),
    "500 html": always(Fault.answers(500, body="html")),
    "500 empty": always(Fault.answers(500, body="empty")),
    "503 empty": always(Fault.answers(503, body="empty")),
    "503 retry-after": always(Fault.answers(503, retry_after=1)),
    "503 early": always(Fault.answers(503, reads_body=False)),
    "429 xml": always(Fault.answers(429)),
    "429 empty": always(Fault.answers(429, body="empty")),
    "429 retry-after html": always(Fault.answers(429, retry_after=2, body="html")),
    "429 far retry-after": always(Fault.answers(429, retry_after=86400)),
    "403 skewed": always(Fault.time_too_skewed(300)),
    "200 html": if_xml(Fault.answers(200, body="html")),
    "200 error": if_xml(Fault.answers(200, code="InternalError")),
    "length +7": lambda phase: Fault.wrong_length(+7) if phase.down or phase.up else None,
    "length -7": lambda phase: Fault.wrong_length(-7) if phase.down else None,
    "no length": lambda phase: Fault.headers({"content-length": None}) if phase.has_length else None,
    "wrong etag": if_told(Fault.headers({"etag": f'"{"0" * 32}"'}), "etag"),
    "odd etag": if_told(Fault.headers({"etag": 'W/"odd'}), "etag"),
    "no etag": if_told(Fault.headers({"etag": None}), "etag"),
    "wrong range": if_told(Fault.headers({"content-range": "bytes 5-6/7"}), "content-range"),
    "lost answer": always(Fault.lost_answer()),
    "lost answer, closed": always(Fault.lost_answer(ending="close")),
    "duplicate": always(Fault.duplicate()),
}


# ── the matrix ───────────────────────────────────────────────────────────────


@frozen
class Case:
    """One place in the matrix."""

    operation: Operation
    phase: Phase
    fault_name: str
    fault: Fault
    is_always: bool

    @property
    def id(self) -> str:
        times = "always" if self.is_always else "once"
        return f"{self.operation.name}-{self.phase.name}-{self.fault_name}-{times}"


CASES = [
    Case(operation, phase, name, fault, is_always)
    for operation in OPERATIONS
    for phase in operation.phases
    for name, make in FAULTS.items()
    if (fault := make(phase)) is not None
    for is_always in (False, True)
]

# These cannot be mended by asking again, or must not be: the answer lies, or refuses for long.
UNMENDED = re.compile(r"429 far retry-after|length .7|no length|(wrong|odd|no) etag|wrong range|200 html")
# But these can: nobody has seen the bytes yet, and they are read from the start.
MENDED_CASES = re.compile(r"get-get-(length .7|wrong etag)-once")
# And this: written by the first copy, which nobody sent, and told of the second that something is there.
UNMENDED_CASES = re.compile(r"put if none-put-duplicate-once")


def is_mended(case: Case) -> bool:
    """Whether the operation has to succeed in spite of the fault."""
    if case.is_always or UNMENDED_CASES.fullmatch(case.id):
        return False
    return MENDED_CASES.fullmatch(case.id) is not None or not UNMENDED.fullmatch(case.fault_name)


def short_form() -> set[tuple[str, str]]:
    """Over each transport each fault, and each request with two faults at least; each fault once and always."""
    seen: Counter[tuple[object, ...]] = Counter()
    chosen: set[tuple[str, str]] = set()
    places = [(case, flavour) for case in CASES for flavour in FLAVOURS]
    for case, flavour in sorted(places, key=lambda place: zlib.crc32(f"{place[0].id} {place[1]}".encode())):
        axes = {
            (flavour, case.fault_name): 1,
            (flavour, case.operation.name, case.phase.name): 2,
            (case.fault_name, case.is_always): 1,
        }
        if any(seen[axis] < least for axis, least in axes.items()):
            chosen.add((case.id, flavour))
            seen.update(axes.keys())
    return chosen


SHORT = short_form()


def params() -> Iterator[object]:
    for case, flavour in itertools.product(CASES, FLAVOURS):
        marks = [] if (case.id, flavour) in SHORT else [pytest.mark.slow]
        yield pytest.param(case, flavour, marks=marks, id=f"{flavour}-{case.id}")


@asynccontextmanager
async def scene_of(store: Store, flavour: str, tmp_path: Path) -> AsyncGenerator[Scene, None]:
    """At its end nothing is open or in use, neither in the transport nor at the proxy."""

    async def no_sleep(_seconds: float) -> None:
        await anyio.lowlevel.checkpoint()

    transport = FLAVOURS[flavour][1](max_connections=8, stall_timeout=STALL_SECONDS)
    async with FaultProxy.before(store.endpoint) as proxy:
        async with (
            transport,
            R2Client(
                endpoint=proxy.url,
                bucket=BUCKET,
                credentials=store.credentials,
                transport=transport,
                retry=RetryPolicy(attempts=3, base=0, sleep=no_sleep),
            ) as r2,
        ):
            yield Scene(store, proxy, r2, tmp_path)
            gauges = transport.statistics()
            assert (gauges.busy, gauges.waiting) == (0, 0)
            proxy.clear()
            assert await r2.get("after") == OLD  # and what is left open is fit to be used
        assert transport.statistics().idle == 0
        await proxy.wait_closed(timeout_seconds=2)


async def succeeds(scene: Scene, operation: Operation, fault: Fault) -> bool:
    """Whether the operation does, in bounded time; if not, by a typed error."""
    with anyio.fail_after(CASE_SECONDS):
        try:
            await operation.run(scene, fault)
        except (R2Error, TransportError):
            return False
    return True


@pytest.mark.parametrize(("case", "flavour"), list(params()), indirect=["flavour"])
async def test_right_bytes_or_a_typed_error(case: Case, flavour: str, store: Store, tmp_path: Path) -> None:
    """And what breaks once is mended, so that not everything is just refused."""
    async with scene_of(store, flavour, tmp_path) as scene:
        case.operation.prepare(scene)
        scene.must_succeed = is_mended(case)
        add = scene.proxy.always if case.is_always else scene.proxy.next
        rule = add(case.fault, when=case.phase.when)
        is_done = await succeeds(scene, case.operation, case.fault)
        assert any(hit.has_struck for hit in rule.hits)
        # On a machine that is busy the client may lose patience with the server before that.
        assert all(hit.has_struck or hit.outcome == "hung up" for hit in rule.hits)
        await case.operation.check(scene, is_done=is_done)
        assert is_done or not scene.must_succeed


@pytest.mark.parametrize("ending", ["close", pytest.param("reset", marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_connections_that_died_idle_cost_the_caller_nothing(
    operation: Operation, ending: Ending, flavour: str, store: Store, tmp_path: Path
) -> None:
    """Dead before they are used again, which can be seen."""
    async with scene_of(store, flavour, tmp_path) as scene:
        operation.prepare(scene)
        scene.must_succeed = True
        assert await scene.r2.bucket_exists()
        assert await scene.proxy.drop_idle(ending) == 1
        assert await succeeds(scene, operation, NOTHING)
        await operation.check(scene, is_done=True)


@pytest.mark.parametrize("ending", ["reset", pytest.param("close", marks=pytest.mark.slow)])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_connections_that_die_as_they_are_used_again_cost_the_caller_nothing(
    operation: Operation, ending: Ending, flavour: str, store: Store, tmp_path: Path
) -> None:
    """Which cannot be seen before."""
    async with scene_of(store, flavour, tmp_path) as scene:
        operation.prepare(scene)
        scene.must_succeed = True
        assert await scene.r2.bucket_exists()
        fault = Fault.reset("request head") if ending == "reset" else Fault.close("request head")
        rule = scene.proxy.next(fault, when=lambda request: request.nth > 0)
        assert await succeeds(scene, operation, NOTHING)
        assert rule.hits[0].outcome == "cut"
        await operation.check(scene, is_done=True)


def test_the_short_form_meets_every_fault_and_every_request_over_every_transport() -> None:
    requests = {(operation.name, phase.name) for operation in OPERATIONS for phase in operation.phases}
    for flavour in FLAVOURS:
        short = [case for case in CASES if (case.id, flavour) in SHORT]
        assert {case.fault_name for case in short} == set(FAULTS)
        assert {(case.operation.name, case.phase.name) for case in short} == requests
    assert len({case.id for case in CASES}) == len(CASES)
