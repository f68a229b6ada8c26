"""An upload in parts is gone on with later, in another process too, and never with another body."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve
from r2_model import (
    AGAIN,
    CONTENT,
    CREDENTIALS,
    MIB,
    Answer,
    Call,
    R2Model,
    Stored,
    body_of,
    client,
    composed,
    small_parts,
)

from prewarmkit.errors import (
    BodyFault,
    NotFound,
    PreconditionFailed,
    ServiceFault,
)
from prewarmkit.r2.multipart import MAX_PART_BYTES, check_part_size, part_size_for
from prewarmkit.r2.tokens import UploadToken, digest_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def tiny() -> Iterator[None]:
    with small_parts():
        yield


async def begun(
    model: R2Model, body: Any, *, upto: int, content_type: str | None = None, part_size: int = 10
) -> UploadToken:
    """An upload that failed after ``upto`` parts, as its token came back from where it was kept."""
    kept: list[str] = []

    async def keep(token: UploadToken) -> None:
        await anyio.lowlevel.checkpoint()
        kept.append(token.to_json())

    model.fault = lambda _n, call: "refuse" if call.number > upto else None
    async with client(model) as r2:
        with pytest.raises(ServiceFault):
            await r2.put(
                "k", body, part_size=part_size, concurrency=1, on_upload=keep, content_type=content_type
            )
    model.fault = lambda _n, _call: None
    model.calls.clear()
    assert len(kept) == 1
    return UploadToken.from_json(kept[0])


@pytest.mark.parametrize("form", AGAIN)
async def test_a_resumed_upload_sends_only_what_is_missing(form: str, tiny: None, tmp_path: Path) -> None:
    for upto in range(6):
        model = R2Model()
        token = await begun(model, body_of(form, CONTENT, [], tmp_path), upto=upto, content_type="a/b")
        assert not model.objects
        async with client(model) as r2:  # in another process, perhaps
            body = body_of(form, CONTENT, [], tmp_path)
            info = await r2.put("k", body, resume=token, content_type="a/b")
        assert (info.size, info.etag) == (55, composed(CONTENT, 10))
        assert (model.objects["k"].content, model.uploads) == (CONTENT, {})
        assert sorted(call.number for call in model.calls if call.number) == list(range(upto + 1, 7))


async def test_a_cancelled_upload_is_kept_for_its_token_and_can_be_ended(tiny: None) -> None:
    tokens: list[UploadToken] = []
    model = R2Model()
    scope = anyio.CancelScope()

    def cancel(call: Call) -> None:
        if call.number == 3:
            scope.cancel()

    model.before = cancel
    async with client(model) as r2:
        with scope:
            await r2.put("k", CONTENT, part_size=10, on_upload=tokens.append)
        [token] = tokens
        assert (scope.cancelled_caught, list(model.uploads)) == (True, [token.upload_id])
        for _ in range(2):  # that it is gone is no error
            await r2.abort_upload(token)
        assert model.uploads == {}
        with pytest.raises(ValueError, match="with_bucket"):
            await r2.with_bucket("other").abort_upload(token)


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (CONTENT + b"x", "56 bytes, not 55"),
        (b"other" + CONTENT[5:], "part 1 is not the one that stands"),
    ],
)
async def test_another_body_is_never_mixed_with_the_parts_that_stand(
    body: bytes, match: str, tiny: None
) -> None:
    model = R2Model()
    token = await begun(model, CONTENT, upto=3)
    async with client(model) as r2:
        with pytest.raises(BodyFault, match=match) as caught:
            await r2.put("k", body, resume=token)
        assert not caught.value.is_retryable
        assert (model.count("upload_part"), list(model.uploads)) == (0, [token.upload_id])
        assert (await r2.put("k", CONTENT, resume=token)).etag == composed(CONTENT, 10)


async def test_a_token_is_for_one_object_in_one_form(tiny: None) -> None:
    model = R2Model()
    token = await begun(model, CONTENT, upto=3, content_type="a/b")
    async with client(model) as r2:
        misfits: list[tuple[str, dict[str, Any], str]] = [
            ("other", {"content_type": "a/b"}, "resume is a token for 'k'"),
            ("k", {"content_type": "a/c"}, "content_type and metadata"),
            ("k", {"content_type": "a/b", "metadata": {"a": "b"}}, "content_type and metadata"),
            ("k", {"content_type": "a/b", "part_size": 11}, "part_size is 11"),
        ]
        for key, options, match in misfits:
            with pytest.raises(ValueError, match=match):
                await r2.put(key, CONTENT, resume=token, **options)
        with pytest.raises(ValueError, match="'media'"):
            await r2.with_bucket("other").put("k", CONTENT, resume=token, content_type="a/b")
        again: list[dict[str, Any]] = [{"resume": token}, {"on_upload": print}]
        for options in again:
            with pytest.raises(TypeError, match="read again"):
                await r2.put("k", iter([CONTENT]), **options)
    assert model.calls == []


async def test_an_upload_that_is_gone_begins_anew_and_says_so(tiny: None) -> None:
    """R2 ends uploads after seven days."""
    model = R2Model(objects={"k": Stored(b"old", "0" * 32 + "-6", {})})
    token = await begun(model, CONTENT, upto=3)
    model.uploads.clear()
    tokens: list[UploadToken] = []
    async with client(model) as r2:
        await r2.put("k", CONTENT, resume=token, on_upload=tokens.append)
    assert (model.objects["k"].content, model.count("upload_part")) == (CONTENT, 6)
    assert [token.upload_id for token in tokens] == ["u/1"]


async def test_an_upload_that_was_completed_unheard_is_done(tiny: None) -> None:
    """The process ended before it heard of its Complete: nothing is sent again, the object's ETag tells."""
    model = R2Model()
    tokens: list[UploadToken] = []
    scope = anyio.CancelScope()
    model.before = lambda call: scope.cancel() if call.operation == "complete" else None
    async with client(model) as r2:
        with scope:
            await r2.put("k", CONTENT, part_size=10, on_upload=tokens.append, if_none_match="*")
        assert scope.cancelled_caught
        model.calls.clear()
        info = await r2.put("k", CONTENT, resume=tokens[0], if_none_match="*")
    assert info.etag == composed(CONTENT, 10)
    assert [call.operation for call in model.calls] == ["list_parts", "head"]


async def test_an_upload_whose_token_could_not_be_kept_is_aborted(tiny: None) -> None:
    def full(_token: UploadToken) -> None:
        raise OSError("disk full")

    model = R2Model()
    async with client(model) as r2:
        with pytest.raises(OSError, match="disk full"):
            await r2.put("k", CONTENT, part_size=10, on_upload=full)
    assert (model.uploads, model.count("abort")) == ({}, 1)


async def test_resuming_looks_no_further_where_it_may_not_ask(tiny: None) -> None:
    model = R2Model()
    token = await begun(model, CONTENT, upto=3)
    model.fault = lambda _n, call: "refuse" if call.operation == "list_parts" else None
    async with client(model) as r2:
        with pytest.raises(ServiceFault):
            await r2.put("k", CONTENT, resume=token)
    assert list(model.uploads) == [token.upload_id]


def test_a_token_is_text_without_secrets_and_back() -> None:
    token = UploadToken(bucket="media", key="ü\n", upload_id="u", size=5, part_size=2, headers_digest="00ff")
    text = token.to_json()
    assert UploadToken.from_json(text) == UploadToken.from_json(text.encode()) == token
    assert text.isascii()
    assert CREDENTIALS.secret_access_key not in text
    for bad in ("", "[]", "{}", text.replace("5", '"5"'), text.replace("bucket", "b"), text.replace("1", "2"),
                text.replace("5", "true")):  # fmt: skip
        with pytest.raises(ValueError, match="upload token"):
            UploadToken.from_json(bad)


async def test_an_upload_that_begins_anew_unheard_is_not_kept(tiny: None) -> None:
    """Nobody has a token for it."""
    model = R2Model()
    token = await begun(model, CONTENT, upto=3)
    model.uploads.clear()
    model.fault = lambda _n, call: "refuse" if call.number == 2 else None
    async with client(model) as r2:
        with pytest.raises(ServiceFault):
            await r2.put("k", CONTENT, resume=token)
    assert (model.uploads, model.count("begin"), model.count("abort")) == ({}, 1, 1)


async def test_an_upload_whose_bucket_is_gone_does_not_begin_anew(tiny: None) -> None:
    class Gone(R2Model):
        def _list_parts(self, call: Call) -> Answer:
            return 404, {}, b"<Error><Code>NoSuchBucket</Code></Error>"

    model = Gone()
    token = await begun(model, CONTENT, upto=3)
    async with client(model) as r2:
        with pytest.raises(NotFound) as caught:
            await r2.put("k", CONTENT, resume=token)
    assert (caught.value.code, model.count("begin")) == ("NoSuchBucket", 0)


async def test_a_token_that_was_tampered_with_is_refused(tiny: None) -> None:
    model = R2Model()
    token = await begun(model, CONTENT, upto=3)
    async with client(model) as r2:
        for part_size in (0, -5):
            with pytest.raises(ValueError, match="part_size"):
                await r2.put("k", CONTENT, resume=evolve(token, part_size=part_size))
        model.uploads[token.upload_id].parts[7] = b"one more"
        with pytest.raises(BodyFault, match="more parts"):
            await r2.put("k", CONTENT, resume=token)


async def test_a_list_of_parts_that_has_no_end_is_a_fault(tiny: None) -> None:
    class Endless(R2Model):
        def _list_parts(self, call: Call) -> Answer:
            status, headers, body = super()._list_parts(call)
            more = b"<IsTruncated>true</IsTruncated><NextPartNumberMarker>2</NextPartNumberMarker></ListPartsResult>"
            return status, headers, body.replace(b"</ListPartsResult>", more)

    model = Endless(page=10)
    token = await begun(model, CONTENT, upto=4)
    async with client(model) as r2:
        with pytest.raises(BodyFault, match="again and again"):
            await r2.put("k", CONTENT, resume=token)
    assert model.count("list_parts") == 2


@pytest.mark.parametrize("code", ["PreconditionFailed", "ConditionalRequestConflict"])
async def test_only_a_condition_that_fails_for_good_ends_a_kept_upload(code: str, tiny: None) -> None:
    """R2 has destroyed it then; a conflict may pass."""

    class Refusing(R2Model):
        def _complete(self, call: Call) -> Answer:
            return 409, {}, f"<Error><Code>{code}</Code></Error>".encode()

    model = Refusing()
    async with client(model) as r2:
        with pytest.raises(PreconditionFailed):
            await r2.put("k", CONTENT, part_size=10, if_match="e", on_upload=lambda _token: None)
    assert (len(model.uploads), model.count("abort")) == ((0, 1) if code == "PreconditionFailed" else (1, 0))


def test_parts_are_so_large_that_ten_thousand_are_enough() -> None:
    """R2's largest object has 4.995 TiB, its parts 5 MiB to 4.995 GiB: Cloudflare's docs, r2/platform/limits."""
    largest = 5 * MIB**2 - 5 * MIB * 1024
    assert (
        part_size_for(None, None) == part_size_for(0, None) == part_size_for(160_000 * MIB, None) == 16 * MIB
    )
    assert part_size_for(160_000 * MIB + 1, None) == 17 * MIB
    assert -(-largest // part_size_for(largest, None)) <= 10_000
    assert check_part_size(part_size_for(largest, None)) == 524 * MIB
    assert part_size_for(50_000 * MIB, 5 * MIB) == check_part_size(5 * MIB) == 5 * MIB
    with pytest.raises(ValueError, match="do not fit"):
        part_size_for(50_000 * MIB + 1, 5 * MIB)
    for bad in (0, 5 * MIB - 1, MAX_PART_BYTES + 1, 5 * 1024 * MIB):
        with pytest.raises(ValueError, match="part_size"):
            check_part_size(bad)


async def test_a_stream_may_have_as_many_parts_as_there_may_be(
    tiny: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prewarmkit.r2.multipart._MAX_PARTS", 3)
    model = R2Model()
    async with client(model) as r2:
        await r2.put("k", iter([bytes(30)]), part_size=10)
    assert (model.objects["k"].content, model.count("upload_part")) == (bytes(30), 3)


def test_a_token_knows_the_headers_in_any_order() -> None:
    headers = (("content-type", "a/b"), ("x-amz-meta-a", "1"), ("x-amz-meta-b", "2"))
    assert digest_of(headers) == digest_of(headers[::-1])
    assert (
        len({digest_of(headers), digest_of(headers[1:]), digest_of((*headers[:2], ("x-amz-meta-b", "3")))})
        == 3
    )
