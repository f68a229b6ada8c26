"""The root of all errors, and those that are yours: settings, keys, schemas."""

from __future__ import annotations

__all__ = [
    "ConfigurationError",
    "CredentialsMissing",
    "InvalidSetting",
    "PrewarmKitError",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "SigningError",
    "TargetRequired",
    "UnknownTarget",
]


class PrewarmKitError(Exception):
    """Root of all errors of this library."""

    is_retryable: bool = False
    """Whether the same call can succeed later with nothing changed by you."""


class ConfigurationError(PrewarmKitError):
    """Something that the host set up cannot work; the message names it."""


class SigningError(ConfigurationError, ValueError):
    """A request that cannot be signed as given."""


class InvalidSetting(ConfigurationError, ValueError):
    """A setting, or an environment variable, has a value that cannot work; the message names it."""


class TargetRequired(ConfigurationError):
    """The pool has several targets, or a resolver, and the call named none."""


class UnknownTarget(ConfigurationError):
    """The call named a target that the pool does not have."""


class CredentialsMissing(ConfigurationError):
    """No credentials were found where they were looked for."""


class SchemaMissing(ConfigurationError):
    """The database has no prewarmkit tables: run the migration first."""


class SchemaTooOld(ConfigurationError):
    """The database is behind this version: run the migration."""


class SchemaTooNew(ConfigurationError):
    """The database was migrated by a newer prewarmkit: upgrade this process."""
