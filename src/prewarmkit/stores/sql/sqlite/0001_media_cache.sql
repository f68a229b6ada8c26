-- One row is a job and its result. Times are POSIX seconds of this machine's clock.
CREATE TABLE media_cache (
    id           INTEGER PRIMARY KEY,
    target       TEXT    NOT NULL,
    media_key    TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    state        TEXT    NOT NULL CHECK (state IN ('pending', 'warming', 'ready', 'failed')),
    priority     INTEGER NOT NULL,
    due_at       REAL    NOT NULL,
    rank         REAL    NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    token        INTEGER NOT NULL DEFAULT 0,
    leased_at    REAL,
    lease_until  REAL,
    size         INTEGER,
    etag         TEXT,
    sha256       TEXT,
    content_type TEXT,
    filename     TEXT,
    handle       TEXT,
    handle_kind  TEXT,
    unique_id    TEXT,
    weak         TEXT,
    details      TEXT,
    warmed_at    REAL,
    expires_at   REAL,
    stale        INTEGER NOT NULL DEFAULT 0,
    reason       TEXT,
    created_at   REAL    NOT NULL,
    updated_at   REAL    NOT NULL,
    UNIQUE (target, media_key, kind)
);

-- What is leased next; what becomes due next; whose lease ran out; whose content is ready, or waits.
CREATE INDEX ix_media_cache_due ON media_cache (rank) WHERE state = 'pending';
CREATE INDEX ix_media_cache_delayed ON media_cache (due_at) WHERE state = 'pending';
CREATE INDEX ix_media_cache_warming ON media_cache (leased_at) WHERE state = 'warming';
CREATE INDEX ix_media_cache_lookup ON media_cache (target, sha256, kind) WHERE state = 'ready';
CREATE INDEX ix_media_cache_content ON media_cache (target, sha256, kind)
    WHERE state = 'pending' AND sha256 IS NOT NULL;

-- Small durable facts of targets.
CREATE TABLE prewarm_state (
    name  TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (name, key)
) WITHOUT ROWID;
