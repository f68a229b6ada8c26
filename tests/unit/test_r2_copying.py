"""A copy is one version of its source, whole or not there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from r2_model import (
    CONTENT,
    SOURCE,
    Answer,
    Call,
    Fault,
    R2Model,
    Stored,
    client,
    composed,
    loses,
    md5,
    on_r2,
)

from prewarmkit.errors import (
    BodyFault,
    ConfigurationError,
    NotFound,
    PreconditionFailed,
    ServiceFault,
)

pytestmark = pytest.mark.anyio


# ── copies ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("key", ["plain", "a b", "a+b", "a%2Fb", "ü/😀", "q?x=1#y", "a//b", " x "])
async def test_any_key_can_be_copied_to_any(key: str) -> None:
    model = R2Model(objects={key: SOURCE})
    async with client(model) as r2:
        info = await r2.copy(key, f"to/{key}")
        again = await r2.copy(f"to/{key}", "back", source_bucket="media")
    assert model.objects[f"to/{key}"] == model.objects["back"] == SOURCE
    assert (info.key, info.size, info.etag, info.content_type) == (f"to/{key}", 7, SOURCE.etag, "a/b")
    assert (info.metadata, again.key) == ({"m": "ü"}, "back")
    assert info.last_modified is not None


async def test_a_copy_is_held_to_its_conditions() -> None:
    model = R2Model(objects={"k": SOURCE, "there": SOURCE})
    async with on_r2(model) as r2:
        failing: list[dict[str, Any]] = [
            {"if_match": "other"},
            {"if_none_match": SOURCE.etag},
            {"dest_if_none_match": "*"},
            {"dest_if_match": "other"},
        ]
        for conditions in failing:
            with pytest.raises(PreconditionFailed):
                await r2.copy("k", "there", **conditions)
        await r2.copy("k", "there", if_match=SOURCE.etag, dest_if_match=SOURCE.etag)
        await r2.copy("k", "new", dest_if_none_match="*")
        with pytest.raises(NotFound) as caught:
            await r2.copy("missing", "new")
        assert caught.value.code == "NoSuchKey"
    async with client(R2Model()) as elsewhere:
        with pytest.raises(ConfigurationError, match="dest_if_match"):
            await elsewhere.copy("k", "new", dest_if_none_match="*")


async def test_a_source_that_changes_meanwhile_is_looked_at_again() -> None:
    other = Stored(b"newer content", md5(b"newer content"), {})

    def change(call: Call) -> None:
        if call.operation == "copy_object":
            model.objects["k"] = other

    model = R2Model(objects={"k": SOURCE}, before=change)
    async with client(model) as r2:
        assert (await r2.copy("k", "to")).size == 13
        model.objects["k"] = SOURCE
        with pytest.raises(PreconditionFailed):
            await r2.copy("k", "to2", if_match=SOURCE.etag)
    assert (model.objects["to"], "to2" in model.objects) == (other, False)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("condition", [{}, {"dest_if_none_match": "*"}])
async def test_a_copy_whose_answers_were_lost_is_a_success(times: int, condition: dict[str, Any]) -> None:
    """Its own copy breaks the condition of the next attempt: what is there is compared with the source."""
    model = R2Model(objects={"k": SOURCE}, fault=loses("copy_object", times))
    async with on_r2(model) as r2:
        info = await r2.copy("k", "to", **condition)
    assert (info.key, info.etag, info.metadata) == ("to", SOURCE.etag, {"m": "ü"})

    theirs = Stored(b"theirs", md5(b"theirs"), {})
    model = R2Model(objects={"k": SOURCE, "to": theirs}, fault=loses("copy_object", 2))
    if condition:
        async with on_r2(model) as r2:
            with pytest.raises(PreconditionFailed):
                await r2.copy("k", "to", **condition)
        assert model.objects["to"] == theirs


async def test_a_copy_that_fails_late_is_made_again_or_is_an_error() -> None:
    """200 OK, and an error inside."""
    left = itertools.count()
    model = R2Model(
        objects={"k": SOURCE},
        fault=lambda _n, call: "late" if call.operation == "copy_object" and next(left) < 2 else None,
    )
    async with client(model) as r2:
        await r2.copy("k", "to")
        assert model.objects["to"] == SOURCE
        model.fault = lambda _n, call: "late" if call.operation == "copy_object" else None
        with pytest.raises(ServiceFault) as caught:
            await r2.copy("k", "to2")
        assert caught.value.code == "InternalError"


LARGE = Stored(CONTENT, md5(CONTENT), {"content-type": "a/b", "x-amz-meta-m": "1"})


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over 20 bytes is too large for one request; parts are of 10."""
    monkeypatch.setattr("prewarmkit.r2.copying.MAX_PART_BYTES", 20)
    monkeypatch.setattr("prewarmkit.r2.copying._PART_BYTES", 10)
    monkeypatch.setattr("prewarmkit.r2.multipart._MIB", 1)


@pytest.mark.parametrize("fault", [None, "refuse", "drop", "lose", "late"])
async def test_a_large_object_is_copied_in_equal_parts_through_any_fault(
    fault: Fault | None, large: None
) -> None:
    for at in range(10):
        model = R2Model(objects={"k": LARGE}, fault=lambda n, _call, at=at: fault if n == at else None)  # type: ignore[misc]
        if at in {0, 8} and fault == "late":
            continue  # HEAD has no body to hold an error
        async with on_r2(model) as r2:
            info = await r2.copy("k", "to", dest_if_none_match="*")
        stored = model.objects["to"]
        assert (stored.content, stored.headers) == (CONTENT, LARGE.headers)
        assert (info.key, info.size, info.etag, info.metadata) == ("to", 55, stored.etag, {"m": "1"})
        assert stored.etag == composed(CONTENT, 10)
        assert [upload.parts for upload in model.uploads.values()] == [{}] * (at == 1 and fault == "lose")


async def test_a_large_source_that_changes_meanwhile_is_never_mixed(large: None) -> None:
    """UploadPartCopy knows no conditions on R2, so the source is looked at again before the end."""

    def change(call: Call) -> None:
        if call.number == 3:
            model.objects["k"] = Stored(CONTENT[::-1], md5(CONTENT[::-1]), {})

    model = R2Model(objects={"k": LARGE}, before=change)
    async with client(model) as r2:
        with pytest.raises(BodyFault, match="changed while it was copied"):
            await r2.copy("k", "to")
    assert ("to" in model.objects, model.uploads, model.count("abort")) == (False, {}, 1)


async def test_a_copy_cancelled_at_any_point_leaves_no_upload(large: None) -> None:
    at = 0
    for at in itertools.count():
        model, points = R2Model(objects={"k": LARGE}), itertools.count()
        scope = anyio.CancelScope()

        def step(at: int = at, points: Iterator[int] = points, scope: anyio.CancelScope = scope) -> None:
            if next(points) == at:
                scope.cancel()

        async with client(model, step=step) as r2:
            with scope:
                await r2.copy("k", "to")
        assert model.uploads == {}
        if next(points) <= at:
            break
    assert at > 20


async def test_parts_whose_etags_are_no_md5s_are_not_held_to_them(
    large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key of a KMS they look like MD5s, and what comes out of them does not."""
    real = R2Model.handle

    def with_kms(self: R2Model, *request: Any) -> Any:
        answer = real(self, *request)
        assert answer is not None
        status, headers, body = answer
        body = body.replace(composed(CONTENT, 10).encode(), b"0" * 32 + b"-6")
        return status, {**headers, "x-amz-server-side-encryption": "aws:kms"}, body

    monkeypatch.setattr(R2Model, "handle", with_kms)
    model = R2Model(objects={"k": LARGE})
    async with client(model) as r2:
        assert (await r2.copy("k", "to")).etag == "0" * 32 + "-6"


async def test_a_source_in_another_bucket_is_no_way_into_a_header() -> None:
    async with client(R2Model()) as r2:
        for bucket in ("a/b", "a\r\nx: y", "", "../x"):
            with pytest.raises(ConfigurationError, match="bucket"):
                await r2.copy("k", "to", source_bucket=bucket)


async def test_an_object_goes_whole_as_long_as_one_request_takes_it(
    large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prewarmkit.r2.copying.MAX_PART_BYTES", len(CONTENT))
    model = R2Model(objects={"k": LARGE, "longer": Stored(CONTENT + b"x", "e", {})})
    async with client(model) as r2:
        await r2.copy("k", "to")
        assert (model.count("copy_object"), model.count("begin")) == (1, 0)
        await r2.copy("longer", "to2")
    assert (model.count("copy_object"), model.count("upload_part_copy")) == (1, 6)
    assert model.objects["to2"].content == CONTENT + b"x"


async def test_a_large_copy_keeps_all_that_belongs_to_its_source(large: None) -> None:
    kept = {
        "content-type": "a/b",
        "cache-control": "no-store",
        "content-disposition": "attachment",
        "content-encoding": "gzip",
        "content-language": "de",
        "expires": "Wed, 21 Oct 2026 07:28:00 GMT",
        "x-amz-storage-class": "STANDARD_IA",
        "x-amz-meta-m": "=?utf-8?B?w7w=?=",
    }
    model = R2Model(objects={"k": Stored(CONTENT, md5(CONTENT), kept)})
    async with client(model) as r2:
        await r2.copy("k", "to")
    [begun] = [call.headers for call in model.calls if call.operation == "begin"]
    assert begun.items() >= kept.items()


async def test_a_source_whose_metadata_change_meanwhile_is_another_one(large: None) -> None:
    def change(call: Call) -> None:
        if call.number == 3:
            model.objects["k"] = Stored(CONTENT, LARGE.etag, {"x-amz-meta-m": "2"})

    model = R2Model(objects={"k": LARGE}, before=change)
    async with client(model) as r2:
        with pytest.raises(BodyFault, match="changed while it was copied"):
            await r2.copy("k", "to")
    assert ("to" in model.objects, model.uploads) == (False, {})


async def test_a_copied_part_needs_an_etag(large: None) -> None:
    class Mute(R2Model):
        def _upload_part_copy(self, call: Call) -> Answer:
            return *super()._upload_part_copy(call)[:2], b"<CopyPartResult/>"

    model = Mute(objects={"k": LARGE})
    async with client(model) as r2:
        with pytest.raises(BodyFault, match="no ETag for part 1"):
            await r2.copy("k", "to", concurrency=1)
    assert model.uploads == {}


async def test_a_missing_bucket_is_told_from_a_missing_source() -> None:
    class Nowhere(R2Model):
        def _head(self, call: Call) -> Answer:
            return 404, {}, b""

    async with client(Nowhere()) as r2:
        with pytest.raises(NotFound) as caught:
            await r2.copy("k", "to")
    assert caught.value.code == "NoSuchBucket"


async def test_a_condition_on_the_destination_that_fails_is_not_tried_again() -> None:
    model = R2Model(objects={"k": SOURCE, "there": LARGE})
    async with on_r2(model) as r2:
        conditions: list[dict[str, Any]] = [{"dest_if_none_match": "*"}, {"dest_if_match": "other"}]
        for condition in conditions:
            model.calls.clear()
            with pytest.raises(PreconditionFailed):
                await r2.copy("k", "there", concurrency=1, **condition)
            assert model.count("copy_object") == 1
    assert model.objects["there"] == LARGE
