"""Every error that prewarmkit raises, by whose fault it is.

::

    PrewarmKitError
    ├── ConfigurationError          yours: a setting, a key, a schema
    │   ├── SigningError            (also a ValueError)
    │   ├── TargetRequired
    │   ├── UnknownTarget
    │   ├── InvalidSetting          (also a ValueError)
    │   ├── CredentialsMissing
    │   ├── SchemaMissing
    │   ├── SchemaTooOld
    │   └── SchemaTooNew
    ├── RemoteError                 theirs: a service answered, and said no
    │   └── R2Error                 code, status, request_id, attempts
    │       ├── NotFound
    │       ├── PreconditionFailed
    │       ├── AccessDenied
    │       ├── SlowDown
    │       ├── InvalidRequest
    │       ├── ServiceFault
    │       ├── ConnectionFault     (also a TransportError)
    │       └── BodyFault
    ├── TransportError              the world's: nothing, or not all, came back
    ├── StoreError                  the world's: the database could not do it
    │   └── StoreFull               no room on its disk
    ├── PoolError
    │   ├── MediaNotReady           state, retry_after
    │   ├── WarmFailed              reason, attempts
    │   ├── WarmTimeout             (also a TimeoutError) retry_after
    │   └── PoolClosed              cause
    ├── QueueError
    │   ├── QueueFull
    │   ├── QueueEmpty
    │   └── QueueClosed
    └── TargetFailure               what a WarmTarget raises: a closed set
        ├── RateLimited             no attempt spent · retry_after, scope
        ├── TargetDown              no attempt spent
        ├── Moved                   no attempt spent · new_id
        ├── ChatDead                no attempt spent
        ├── SourceMissing           final
        ├── MediaUnfit              final
        ├── TooLarge                final · limit
        ├── Transient               one attempt · outcome_unknown
        ├── SourceChanged           one attempt
        ├── RouteUnfit              one attempt
        └── BadHandle               one attempt · handle

Each message says what to do next, each class says by `is_retryable` whether doing
the same again can help, and none ever holds a key, a token or a presigned query.
This package imports nothing but the standard library.
"""

from __future__ import annotations

from prewarmkit.errors.base import (
    ConfigurationError,
    CredentialsMissing,
    InvalidSetting,
    PrewarmKitError,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
    SigningError,
    TargetRequired,
    UnknownTarget,
)
from prewarmkit.errors.pool import (
    MediaNotReady,
    PoolClosed,
    PoolError,
    QueueClosed,
    QueueEmpty,
    QueueError,
    QueueFull,
    StoreError,
    StoreFull,
    WarmFailed,
    WarmTimeout,
)
from prewarmkit.errors.remote import (
    AccessDenied,
    BodyFault,
    ConnectionFault,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    R2Error,
    RemoteError,
    ServiceFault,
    SlowDown,
    TransportError,
)
from prewarmkit.errors.targets import (
    BadHandle,
    ChatDead,
    MediaUnfit,
    Moved,
    RateLimited,
    RouteUnfit,
    SourceChanged,
    SourceMissing,
    TargetDown,
    TargetFailure,
    TooLarge,
    Transient,
)

__all__ = [
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
]
