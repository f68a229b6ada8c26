"""Credentials: where they come from, what they hide, and how they are renewed."""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from prewarmkit import (
    ConfigurationError,
    Credentials,
    CredentialsMissing,
    CredentialsProvider,
    SigningError,
    SigV4Signer,
)
from prewarmkit.testing.clock import FakeClock

URL = "https://host/bucket/key"
SECRET = "tell-nobody-0123456789"


# ── the value ────────────────────────────────────────────────────────────────


def test_secret_and_token_are_hidden() -> None:
    credentials = Credentials("AKID", SECRET, "token-token-token")
    for shown in (repr(credentials), str(credentials), f"{[credentials]}"):
        assert "AKID" in shown
        assert SECRET not in shown
        assert "token-token" not in shown
        assert credentials.secret_digest.hex() not in shown
        assert "digest" not in shown


def test_credentials_are_frozen_comparable_and_not_pickled() -> None:
    credentials = Credentials("AKID", SECRET)
    with pytest.raises(AttributeError):
        credentials.secret_access_key = "other"  # type: ignore[misc] # frozen
    assert credentials == Credentials("AKID", SECRET)
    assert credentials != Credentials("AKID", SECRET, "token")
    assert copy.deepcopy(credentials) is copy.copy(credentials) is credentials
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(credentials)


def test_the_digest_stands_for_the_secret_alone() -> None:
    digest = Credentials("AKID", SECRET).secret_digest
    assert len(digest) == 32
    assert digest == Credentials("OTHER", SECRET, "token").secret_digest
    assert digest != Credentials("AKID", SECRET + "x").secret_digest
    assert digest != hashlib.sha256(SECRET.encode()).digest(), "no plain hash that a table could be made of"


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("access_key_id", ("", SECRET)),
        ("access_key_id", (None, SECRET)),
        ("access_key_id", ("AK ID", SECRET)),
        ("access_key_id", ("AKID\n", SECRET)),
        ("access_key_id", ("AK/ID", SECRET)),
        ("access_key_id", ("ÄKID", SECRET)),
        ("secret_access_key", ("AKID", "")),
        ("secret_access_key", ("AKID", None)),
        ("secret_access_key", ("AKID", b"bytes")),
        ("secret_access_key", ("AKID", SECRET + "\n")),
        ("secret_access_key", ("AKID", " " + SECRET)),
        ("secret_access_key", ("AKID", "a\x00b")),
        ("secret_access_key", ("AKID", "\ud800")),
        ("session_token", ("AKID", SECRET, "")),
        ("session_token", ("AKID", SECRET, "a\nb")),
        ("session_token", ("AKID", SECRET, "ü")),
        ("session_token", ("AKID", SECRET, 1)),
    ],
)
def test_what_cannot_be_credentials_is_refused_unseen(argument: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(SigningError, match=argument) as caught:
        Credentials(*arguments)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("expires_at", [datetime(2030, 1, 1), 1_900_000_000, "2030-01-01"])  # noqa: DTZ001 - naive on purpose
def test_an_end_must_be_an_aware_datetime(expires_at: Any) -> None:
    with pytest.raises(SigningError, match="expires_at"):
        Credentials("AKID", SECRET, expires_at=expires_at)


# ── where they come from ─────────────────────────────────────────────────────


def test_the_environment_gives_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    assert Credentials.from_env() == Credentials("AKID", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "")
    assert Credentials.from_env() == Credentials("AKID", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    assert Credentials.from_env() == Credentials("AKID", SECRET, "token")


@pytest.mark.parametrize(
    ("environ", "named", "unnamed"),
    [
        ({}, ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], []),
        ({"AWS_ACCESS_KEY_ID": "AKID"}, ["AWS_SECRET_ACCESS_KEY"], ["AWS_ACCESS_KEY_ID"]),
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, ["AWS_ACCESS_KEY_ID"], ["AWS_SECRET_ACCESS_KEY"]),
        (
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": SECRET},
            ["AWS_ACCESS_KEY_ID"],
            ["AWS_SECRET_ACCESS_KEY"],
        ),
    ],
)
def test_a_missing_variable_is_named(environ: dict[str, str], named: list[str], unnamed: list[str]) -> None:
    with pytest.raises(CredentialsMissing) as caught:
        Credentials.from_env(environ)
    assert all(name in str(caught.value) for name in named)
    assert not any(name in str(caught.value) for name in unnamed)
    assert SECRET not in str(caught.value)


def test_an_r2_api_token_is_an_access_key() -> None:
    """Source: Cloudflare R2 documentation, "Authentication": the secret is the SHA-256 of the token value."""
    credentials = Credentials.from_api_token("f" * 32, "v1.0-token-value")
    assert credentials == Credentials("f" * 32, hashlib.sha256(b"v1.0-token-value").hexdigest())
    with pytest.raises(SigningError, match="token"):
        Credentials.from_api_token("f" * 32, "")


# ── the end of them ──────────────────────────────────────────────────────────


def test_credentials_that_ended_do_not_sign() -> None:
    clock = FakeClock()
    end = datetime.fromtimestamp(clock.now + 60, UTC)
    signer = SigV4Signer(Credentials("AKID", SECRET, expires_at=end), clock=clock)
    clock.advance(59)
    signer.sign("GET", URL)
    clock.advance(1)
    for call in (signer.sign, signer.presign):
        with pytest.raises(SigningError, match="ended at"):
            call("GET", URL)


# ── a provider ───────────────────────────────────────────────────────────────


class Provider:
    """Gives credentials numbered by the call, as slowly as told, or fails."""

    def __init__(self, clock: Callable[[], float], life: float | None = 3600.0) -> None:
        self.clock = clock
        self.life = life
        self.calls = 0
        self.failure: Exception | None = None
        self.gate: anyio.Event | None = None

    async def get(self) -> Credentials:
        self.calls += 1
        number = self.calls
        if self.gate is not None:
            await self.gate.wait()
        else:
            await anyio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure
        end = None if self.life is None else datetime.fromtimestamp(self.clock() + self.life, UTC)
        return Credentials(f"AKID{number}", f"secret-{number}", expires_at=end)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider(clock: FakeClock) -> Provider:
    return Provider(clock)


@pytest.fixture
def signer(provider: Provider, clock: FakeClock) -> SigV4Signer:
    return SigV4Signer(provider, clock=clock)


def signer_is(signer: SigV4Signer, access_key_id: str) -> bool:
    return f"Credential={access_key_id}/" in signer.sign("GET", URL)["authorization"]


def test_a_provider_is_one_by_its_method(provider: Provider) -> None:
    assert isinstance(provider, CredentialsProvider)


def test_signing_before_the_first_refresh_says_what_to_do(signer: SigV4Signer) -> None:
    with pytest.raises(CredentialsMissing, match="refresh"):
        signer.sign("GET", URL)


@pytest.mark.anyio
async def test_refresh_does_nothing_for_static_credentials() -> None:
    signer = SigV4Signer(Credentials("AKID", SECRET))
    await signer.refresh(force=True)
    assert signer_is(signer, "AKID")


@pytest.mark.anyio
async def test_credentials_are_renewed_five_minutes_ahead(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    await signer.refresh()
    clock.advance(3600 - 301)
    await signer.refresh()
    assert signer_is(signer, "AKID1")
    clock.advance(1)
    await signer.refresh()
    assert signer_is(signer, "AKID2")
    assert provider.calls == 2


@pytest.mark.anyio
async def test_credentials_without_an_end_are_fetched_once_unless_forced(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    provider.life = None
    for _ in range(3):
        await signer.refresh()
        clock.advance(1e6)
    assert provider.calls == 1
    await signer.refresh(force=True)
    assert signer_is(signer, "AKID2")


@pytest.mark.anyio
async def test_a_hundred_callers_share_one_call(signer: SigV4Signer, provider: Provider) -> None:
    provider.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(signer.refresh)
        await anyio.wait_all_tasks_blocked()
        provider.gate.set()
    assert provider.calls == 1
    assert signer_is(signer, "AKID1")


@pytest.mark.anyio
async def test_nobody_waits_while_the_present_credentials_hold(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    await signer.refresh()
    clock.advance(3600 - 100)
    provider.gate = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signer.refresh)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(1):
            await signer.refresh()
        assert signer_is(signer, "AKID1")
        provider.gate.set()
    assert signer_is(signer, "AKID2")


@pytest.mark.anyio
async def test_a_cancelled_leader_leaves_the_call_to_the_next(
    signer: SigV4Signer, provider: Provider
) -> None:
    provider.gate = anyio.Event()
    done: list[int] = []

    async def follow() -> None:
        await signer.refresh()
        done.append(1)

    async with anyio.create_task_group() as tasks:
        leader = anyio.CancelScope()

        async def lead() -> None:
            with leader:
                await signer.refresh()

        tasks.start_soon(lead)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        leader.cancel()
        await anyio.wait_all_tasks_blocked()
        assert provider.calls == 2
        provider.gate.set()
    assert len(done) == 3
    assert signer_is(signer, "AKID2")


@pytest.mark.anyio
async def test_a_failure_reaches_everyone_who_needs_the_answer(
    signer: SigV4Signer, provider: Provider
) -> None:
    provider.gate = anyio.Event()
    provider.failure = OSError("vault is sealed")
    failures: list[Exception] = []

    async def ask() -> None:
        try:
            await signer.refresh()
        except OSError as error:
            failures.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        provider.gate.set()
    assert (len(failures), provider.calls) == (5, 1)
    provider.failure = None
    await signer.refresh()
    assert signer_is(signer, "AKID2")


@pytest.mark.anyio
async def test_a_failure_ahead_of_the_end_is_a_warning_and_after_it_an_error(
    signer: SigV4Signer, provider: Provider, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await signer.refresh()
    provider.failure = OSError("token=abc is refused")
    clock.advance(3600 - 100)
    with caplog.at_level(logging.WARNING, logger="prewarmkit.sigv4"):
        await signer.refresh()
        assert "OSError" in caplog.text
        assert "abc" not in caplog.text
        assert signer_is(signer, "AKID1")
        assert provider.calls == 2
        await signer.refresh()
        clock.advance(9)
        await signer.refresh()
        assert provider.calls == 2, "a provider in trouble is not asked by every request"
        clock.advance(1)
        await signer.refresh()
        assert provider.calls == 3
    with pytest.raises(OSError, match="refused"):
        await signer.refresh(force=True)
    clock.advance(90)
    with pytest.raises(OSError, match="refused"):
        await signer.refresh()


@pytest.mark.anyio
async def test_after_a_failure_the_end_does_not_wait_for_the_next_try(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    await signer.refresh()
    provider.failure = OSError("away")
    clock.advance(3600 - 5)
    await signer.refresh()
    provider.failure = None
    clock.advance(5)
    await signer.refresh()
    assert signer_is(signer, "AKID3")


@pytest.mark.anyio
async def test_who_forces_a_renewal_shares_the_one_under_way(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    await signer.refresh()
    clock.advance(3600 - 100)
    provider.gate = anyio.Event()
    done: list[bool] = []

    async def force() -> None:
        await signer.refresh(force=True)
        done.append(signer_is(signer, "AKID2"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signer.refresh)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(force)
        await anyio.wait_all_tasks_blocked()
        assert done == []
        provider.gate.set()
    assert (done, provider.calls) == ([True], 2)


@pytest.mark.anyio
@pytest.mark.parametrize("life", [0.0, -5.0])
async def test_a_provider_that_gives_ended_credentials_is_told_so(
    signer: SigV4Signer, provider: Provider, life: float
) -> None:
    provider.life = life
    with pytest.raises(CredentialsMissing, match="ended already"):
        await signer.refresh()
    with pytest.raises(CredentialsMissing, match="refresh"):
        signer.sign("GET", URL)


@pytest.mark.anyio
async def test_a_provider_must_give_credentials() -> None:
    class Wrong:
        async def get(self) -> Any:
            return ("AKID", SECRET)

    with pytest.raises(ConfigurationError, match="tuple") as caught:
        await SigV4Signer(Wrong()).refresh()
    assert SECRET not in str(caught.value)


@pytest.mark.anyio
async def test_the_end_is_judged_by_the_servers_clock(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    """With a clock an hour behind, credentials would look good for an hour too long."""
    await signer.refresh()
    end = datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)
    signer.observe_server_date(end.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    provider.life = 7200.0
    await signer.refresh()
    assert provider.calls == 2


def test_help_shows_nothing_of_the_environment() -> None:
    """A default of ``os.environ`` would be written out by `help`, `inspect.signature` and every documentation tool."""
    assert str(inspect.signature(Credentials.from_env)).startswith(
        "(environ: 'Mapping[str, str] | None' = None)"
    )


@pytest.mark.anyio
async def test_credentials_of_a_short_life_are_not_asked_for_by_every_request(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    """Under five minutes from the start: renewal is always due, and asked for each ten seconds."""
    provider.life = 240
    for _ in range(100):
        await signer.refresh()
    assert provider.calls == 1
    clock.advance(10)
    await signer.refresh()
    assert provider.calls == 2


@pytest.mark.anyio
async def test_one_wrong_date_does_not_lock_new_credentials_out(
    signer: SigV4Signer, provider: Provider, clock: FakeClock
) -> None:
    await signer.refresh()
    signer.observe_server_date(formatdate(clock.now + 7200, usegmt=True))
    await signer.refresh()
    assert signer_is(signer, "AKID2")
    assert signer.clock_skew_seconds == 0
