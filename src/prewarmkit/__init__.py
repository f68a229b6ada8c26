"""Warm media ahead of demand and keep the reusable handle.

The public names, imported at first use: ``import prewarmkit`` loads neither an HTTP
client nor a database driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prewarmkit._lazy import lazy_exports

if TYPE_CHECKING:
    from prewarmkit.errors import AccessDenied as AccessDenied
    from prewarmkit.errors import BadHandle as BadHandle
    from prewarmkit.errors import BodyFault as BodyFault
    from prewarmkit.errors import ChatDead as ChatDead
    from prewarmkit.errors import ConfigurationError as ConfigurationError
    from prewarmkit.errors import ConnectionFault as ConnectionFault
    from prewarmkit.errors import CredentialsMissing as CredentialsMissing
    from prewarmkit.errors import InvalidRequest as InvalidRequest
    from prewarmkit.errors import InvalidSetting as InvalidSetting
    from prewarmkit.errors import MediaNotReady as MediaNotReady
    from prewarmkit.errors import MediaUnfit as MediaUnfit
    from prewarmkit.errors import Moved as Moved
    from prewarmkit.errors import NotFound as NotFound
    from prewarmkit.errors import PoolClosed as PoolClosed
    from prewarmkit.errors import PoolError as PoolError
    from prewarmkit.errors import PreconditionFailed as PreconditionFailed
    from prewarmkit.errors import PrewarmKitError as PrewarmKitError
    from prewarmkit.errors import QueueClosed as QueueClosed
    from prewarmkit.errors import QueueEmpty as QueueEmpty
    from prewarmkit.errors import QueueError as QueueError
    from prewarmkit.errors import QueueFull as QueueFull
    from prewarmkit.errors import R2Error as R2Error
    from prewarmkit.errors import RateLimited as RateLimited
    from prewarmkit.errors import RemoteError as RemoteError
    from prewarmkit.errors import RouteUnfit as RouteUnfit
    from prewarmkit.errors import SchemaMissing as SchemaMissing
    from prewarmkit.errors import SchemaTooNew as SchemaTooNew
    from prewarmkit.errors import SchemaTooOld as SchemaTooOld
    from prewarmkit.errors import ServiceFault as ServiceFault
    from prewarmkit.errors import SigningError as SigningError
    from prewarmkit.errors import SlowDown as SlowDown
    from prewarmkit.errors import SourceChanged as SourceChanged
    from prewarmkit.errors import SourceMissing as SourceMissing
    from prewarmkit.errors import StoreError as StoreError
    from prewarmkit.errors import StoreFull as StoreFull
    from prewarmkit.errors import TargetDown as TargetDown
    from prewarmkit.errors import TargetFailure as TargetFailure
    from prewarmkit.errors import TargetRequired as TargetRequired
    from prewarmkit.errors import TooLarge as TooLarge
    from prewarmkit.errors import Transient as Transient
    from prewarmkit.errors import TransportError as TransportError
    from prewarmkit.errors import UnknownTarget as UnknownTarget
    from prewarmkit.errors import WarmFailed as WarmFailed
    from prewarmkit.errors import WarmTimeout as WarmTimeout
    from prewarmkit.media import Handle as Handle
    from prewarmkit.media import Media as Media
    from prewarmkit.media import MediaKind as MediaKind
    from prewarmkit.media import ObjectInfo as ObjectInfo
    from prewarmkit.pool.pool import PrewarmPool as PrewarmPool
    from prewarmkit.pool.settings import PoolSettings as PoolSettings
    from prewarmkit.pool.stats import PoolStats as PoolStats
    from prewarmkit.r2.client import R2Client as R2Client
    from prewarmkit.r2.retry import RetryPolicy as RetryPolicy
    from prewarmkit.r2.retry import Timeouts as Timeouts
    from prewarmkit.ring import RingQueue as RingQueue
    from prewarmkit.sigv4.credentials import Credentials as Credentials
    from prewarmkit.sigv4.credentials import CredentialsProvider as CredentialsProvider
    from prewarmkit.sigv4.keys import KeyCache as KeyCache
    from prewarmkit.sigv4.keys import KeyScope as KeyScope
    from prewarmkit.sigv4.keys import MemoryKeyCache as MemoryKeyCache
    from prewarmkit.sigv4.keys import SigningKey as SigningKey
    from prewarmkit.sigv4.signer import UNSIGNED_PAYLOAD as UNSIGNED_PAYLOAD
    from prewarmkit.sigv4.signer import SigV4Signer as SigV4Signer
    from prewarmkit.sigv4.temporary import mint_temporary_credentials as mint_temporary_credentials
    from prewarmkit.stores.base import Enqueued as Enqueued

__all__ = [
    "UNSIGNED_PAYLOAD",
    "AccessDenied",
    "BadHandle",
    "BodyFault",
    "ChatDead",
    "ConfigurationError",
    "ConnectionFault",
    "Credentials",
    "CredentialsMissing",
    "CredentialsProvider",
    "Enqueued",
    "Handle",
    "InvalidRequest",
    "InvalidSetting",
    "KeyCache",
    "KeyScope",
    "Media",
    "MediaKind",
    "MediaNotReady",
    "MediaUnfit",
    "MemoryKeyCache",
    "Moved",
    "NotFound",
    "ObjectInfo",
    "PoolClosed",
    "PoolError",
    "PoolSettings",
    "PoolStats",
    "PreconditionFailed",
    "PrewarmKitError",
    "PrewarmPool",
    "QueueClosed",
    "QueueEmpty",
    "QueueError",
    "QueueFull",
    "R2Client",
    "R2Error",
    "RateLimited",
    "RemoteError",
    "RetryPolicy",
    "RingQueue",
    "RouteUnfit",
    "SchemaMissing",
    "SchemaTooNew",
    "SchemaTooOld",
    "ServiceFault",
    "SigV4Signer",
    "SigningError",
    "SigningKey",
    "SlowDown",
    "SourceChanged",
    "SourceMissing",
    "StoreError",
    "StoreFull",
    "TargetDown",
    "TargetFailure",
    "TargetRequired",
    "Timeouts",
    "TooLarge",
    "Transient",
    "TransportError",
    "UnknownTarget",
    "WarmFailed",
    "WarmTimeout",
    "mint_temporary_credentials",
]

_DEFINED_IN = {
    **dict.fromkeys(
        (
            "AccessDenied",
            "BadHandle",
            "BodyFault",
            "ChatDead",
            "ConfigurationError",
            "ConnectionFault",
            "CredentialsMissing",
            "InvalidRequest",
            "InvalidSetting",
            "MediaNotReady",
            "MediaUnfit",
            "Moved",
            "NotFound",
            "PoolClosed",
            "PoolError",
            "PreconditionFailed",
            "PrewarmKitError",
            "QueueClosed",
            "QueueEmpty",
            "QueueError",
            "QueueFull",
            "R2Error",
            "RateLimited",
            "RemoteError",
            "RouteUnfit",
            "SchemaMissing",
            "SchemaTooNew",
            "SchemaTooOld",
            "ServiceFault",
            "SigningError",
            "SlowDown",
            "SourceChanged",
            "SourceMissing",
            "StoreError",
            "StoreFull",
            "TargetDown",
            "TargetFailure",
            "TargetRequired",
            "TooLarge",
            "Transient",
            "TransportError",
            "UnknownTarget",
            "WarmFailed",
            "WarmTimeout",
        ),
        "prewarmkit.errors",
    ),
    **dict.fromkeys(
        (
            "Handle",
            "Media",
            "MediaKind",
            "ObjectInfo",
        ),
        "prewarmkit.media",
    ),
    **dict.fromkeys(
        ("PrewarmPool",),
        "prewarmkit.pool.pool",
    ),
    **dict.fromkeys(
        ("PoolSettings",),
        "prewarmkit.pool.settings",
    ),
    **dict.fromkeys(
        ("PoolStats",),
        "prewarmkit.pool.stats",
    ),
    **dict.fromkeys(
        ("R2Client",),
        "prewarmkit.r2.client",
    ),
    **dict.fromkeys(
        (
            "RetryPolicy",
            "Timeouts",
        ),
        "prewarmkit.r2.retry",
    ),
    **dict.fromkeys(
        ("RingQueue",),
        "prewarmkit.ring",
    ),
    **dict.fromkeys(
        (
            "Credentials",
            "CredentialsProvider",
        ),
        "prewarmkit.sigv4.credentials",
    ),
    **dict.fromkeys(
        (
            "KeyCache",
            "KeyScope",
            "MemoryKeyCache",
            "SigningKey",
        ),
        "prewarmkit.sigv4.keys",
    ),
    **dict.fromkeys(
        (
            "SigV4Signer",
            "UNSIGNED_PAYLOAD",
        ),
        "prewarmkit.sigv4.signer",
    ),
    **dict.fromkeys(
        ("mint_temporary_credentials",),
        "prewarmkit.sigv4.temporary",
    ),
    **dict.fromkeys(
        ("Enqueued",),
        "prewarmkit.stores.base",
    ),
}

__getattr__, __dir__ = lazy_exports(__name__, _DEFINED_IN)
