"""PoolSettings reads the original's variables, and refuses what cannot work by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from prewarmkit import ConfigurationError, InvalidSetting, PoolSettings


def test_the_defaults_are_the_originals() -> None:
    """An empty environment changes nothing; others' variables are nobody's business here."""
    settings = PoolSettings.from_env({"PATH": "/bin", "MEDIA_OTHER": "x"})
    assert settings == PoolSettings()
    assert (settings.concurrency, settings.max_queue, settings.poll_interval_seconds) == (5, 500, 2.0)
    assert (settings.max_attempts, settings.retry_base_seconds, settings.lease_seconds) == (6, 60, 60)
    assert (settings.autostart, settings.failure_ttl_seconds, settings.lookup_cache_seconds) == (True, 30, 5)


def test_the_originals_variables_are_read() -> None:
    """Names, units and meaning as they were."""
    settings = PoolSettings.from_env(
        {
            "MEDIA_PREWARM_CONCURRENCY": "12",
            "MEDIA_PREWARM_MAX_QUEUE": " 9000 ",
            "MEDIA_PREWARM_INTERVAL_MS": "250",
            "MEDIA_PREWARM_RETRY_WEAK_ID": "0",
        }
    )
    assert (settings.concurrency, settings.max_queue) == (12, 9000)
    assert (settings.poll_interval_seconds, settings.retry_weak_id) == (0.25, 0)


def test_every_other_field_has_a_variable() -> None:
    """The prefix and the field's name in capitals."""
    settings = PoolSettings.from_env(
        {
            "MEDIA_PREWARM_AUTOSTART": "no",
            "MEDIA_PREWARM_WEAK": "store",
            "MEDIA_PREWARM_MAX_BACKLOG": "7",
            "MEDIA_PREWARM_LEASE_SECONDS": "1.5",
        }
    )
    assert settings == PoolSettings(autostart=False, weak="store", max_backlog=7, lease_seconds=1.5)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MEDIA_PREWARM_CONCURRENCY", "many", "whole number"),
        ("MEDIA_PREWARM_CONCURRENCY", "", "whole number"),
        ("MEDIA_PREWARM_CONCURRENCY", "2.5", "whole number"),
        ("MEDIA_PREWARM_CONCURRENCY", "0", "1 or more"),
        ("MEDIA_PREWARM_MAX_QUEUE", "-1", "1 or more"),
        ("MEDIA_PREWARM_INTERVAL_MS", "fast", "milliseconds"),
        ("MEDIA_PREWARM_INTERVAL_MS", "0", "more than 0"),
        ("MEDIA_PREWARM_INTERVAL_MS", "nan", "more than 0"),
        ("MEDIA_PREWARM_AUTOSTART", "maybe", "1 or 0"),
        ("MEDIA_PREWARM_WEAK", "ignore", "'retry', 'store' or 'reject'"),
        ("MEDIA_PREWARM_CONCURENCY", "5", "MEDIA_PREWARM_CONCURRENCY"),
        ("MEDIA_PREWARM_POLL_INTERVAL_SECONDS", "5", "MEDIA_PREWARM_INTERVAL_MS"),
    ],
)
def test_what_does_not_parse_is_an_error_that_names_it(name: str, value: str, says: str) -> None:
    """A typing slip in a deployment must not become a default."""
    with pytest.raises(ConfigurationError) as error:
        PoolSettings.from_env({name: value})
    assert name in str(error.value)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"concurrency": 1.5},
        {"max_queue": 0},
        {"retry_base_seconds": -1},
        {"weak": "no"},
        {"lease_seconds": 0},
        {"poll_interval_seconds": float("nan")},
        {"max_backlog": 0},
    ],
)
def test_the_constructor_checks_as_well(wrong: dict[str, Any]) -> None:
    """The message names the field."""
    with pytest.raises(InvalidSetting, match=next(iter(wrong))):
        PoolSettings(**wrong)


def test_the_processs_own_environment_is_read_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No argument means os.environ, which help() must not print."""
    monkeypatch.setenv("MEDIA_PREWARM_CONCURRENCY", "9")
    monkeypatch.setenv("SOME_SECRET", "hunter2")
    assert PoolSettings.from_env().concurrency == 9
    assert "hunter2" not in str(inspect.signature(PoolSettings.from_env))
