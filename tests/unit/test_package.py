"""The package imports cheaply, exports exactly what it says, and tells its errors' faults."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import prewarmkit
from prewarmkit import errors

PUBLIC = [
    "prewarmkit",
    "prewarmkit.stores",
    "prewarmkit.sources",
    "prewarmkit.targets",
    "prewarmkit.transports",
    "prewarmkit.blocking",
]


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after running ``code``."""
    script = f"{code}\nimport sys; print(' '.join(sorted(name.partition('.')[0] for name in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_client_and_no_driver() -> None:
    """A host pays for what it uses."""
    heavy = {
        "httpx",
        "httpcore",
        "psycopg",
        "psycopg_pool",
        "sqlite3",
        "anyio",
        "attrs",
        "aiohttp",
        "rich",
        "ssl",
    }
    assert not loaded_after("import prewarmkit") & heavy


@pytest.mark.parametrize("name", ["SigV4Signer", "RingQueue", "PrewarmPool", "R2Client"])
def test_using_a_name_loads_no_driver_and_no_client_layer(name: str) -> None:
    """Signing, queueing and the pool need neither psycopg nor httpx."""
    assert not loaded_after(f"from prewarmkit import {name}") & {"psycopg", "psycopg_pool", "httpx"}


def test_the_blocking_pool_loads_no_more_than_the_asynchronous_one() -> None:
    """A script that warms from a directory needs neither psycopg nor httpx."""
    assert not loaded_after("from prewarmkit.blocking import PrewarmPool") & {
        "psycopg",
        "psycopg_pool",
        "httpx",
    }


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_there(package: str) -> None:
    """__all__ is what dir() shows and what can be had."""
    module = importlib.import_module(package)
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        module.nothing_like_it  # noqa: B018


def test_the_root_exports_every_error() -> None:
    """A host catches by name."""
    assert set(errors.__all__) <= set(prewarmkit.__all__)
    for name in errors.__all__:
        assert name in (errors.__doc__ or ""), f"{name} is missing from the printed tree"


def test_the_error_tree_is_the_printed_one() -> None:
    """Parents and rules of retry, one class a line."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.PrewarmKitError)
        assert isinstance(kind.is_retryable, bool)
    assert issubclass(errors.SigningError, (errors.ConfigurationError, ValueError))
    assert issubclass(errors.ConnectionFault, errors.TransportError)
    assert issubclass(errors.ConnectionFault, errors.R2Error)
    assert issubclass(errors.WarmTimeout, TimeoutError)
    final = {errors.SourceMissing, errors.MediaUnfit, errors.TooLarge}
    free = {errors.RateLimited, errors.TargetDown, errors.Moved, errors.ChatDead}
    for kind in errors.TargetFailure.__subclasses__():
        assert kind.is_final == (kind in final)
        assert kind.spends_attempt == (kind not in free)


def test_errors_carry_what_they_say() -> None:
    """Attributes, and a message that tells the next step."""
    cold = errors.MediaNotReady("pending", 2.5, key="a.png")
    assert (cold.state, cold.retry_after) == ("pending", 2.5)
    assert "ask again in 2.5 s" in str(cold)
    failed = errors.WarmFailed("too_large: x", 1, key="a.png")
    assert (failed.reason, failed.attempts) == ("too_large: x", 1)
    assert "requeue_failed" in str(failed)
    assert errors.RateLimited("m", 3.0, "chat").scope == "chat"
    assert errors.RateLimited("m", retry_after=3.0).scope == "target"
    assert errors.Transient("m", outcome_unknown=True).outcome_unknown
    assert errors.Moved("m", new_id=-5).new_id == -5
    assert errors.BadHandle("m", "H").handle == "H"
    assert errors.TooLarge("m", 50).limit == 50
    r2 = errors.NotFound("gone", code="NoSuchKey", status=404, request_id="ray", attempts=2)
    assert (r2.code, r2.status, r2.request_id, r2.attempts, r2.is_retryable) == (
        "NoSuchKey",
        404,
        "ray",
        2,
        False,
    )
