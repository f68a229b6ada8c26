-- One row is a job and its result. Every time is this server's: callers send delays.
--
-- Columns that a move leaves alone stand before those that it changes, so that an update
-- on the same page logs the changed part only. `rank` is the place in the queue: NULL in a
-- pending row that is not due yet, and in every row that is not pending. `suspect` marks a
-- row whose last lease ran out. `lease_until`, which heartbeats write, stands in no index and
-- in no predicate: those updates are HOT.
CREATE SEQUENCE {schema}.media_cache_token;

CREATE TABLE {schema}.media_cache (
    size         bigint,
    target       text COLLATE "C" NOT NULL,
    media_key    text COLLATE "C" NOT NULL,
    kind         text COLLATE "C" NOT NULL,
    etag         text,
    sha256       text COLLATE "C",
    content_type text,
    filename     text,
    priority     smallint NOT NULL CONSTRAINT media_cache_priority CHECK (priority BETWEEN 0 AND 9),
    due_at       timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    rank         timestamptz,
    token        bigint,
    leased_at    timestamptz,
    lease_until  timestamptz,
    attempts     smallint NOT NULL DEFAULT 0,
    stale        boolean NOT NULL DEFAULT false,
    suspect      boolean NOT NULL DEFAULT false,
    state        text COLLATE "C" NOT NULL
                 CONSTRAINT media_cache_state CHECK (state IN ('pending', 'warming', 'ready', 'failed')),
    reason       text,
    handle       text,
    handle_kind  text,
    unique_id    text,
    weak         json,
    details      json,
    warmed_at    timestamptz,
    expires_at   timestamptz,
    CONSTRAINT media_cache_pkey PRIMARY KEY (target, media_key, kind)
) WITH (
    fillfactor = 40,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_limit = 2000,
    autovacuum_vacuum_cost_delay = 1,
    autovacuum_analyze_scale_factor = 0.02
);

-- fillfactor: a row is written three times (pending, warming, ready) within a short life as
-- a job. With room for all three on one page an update logs what changed and not the row.

-- What is leased next, a target at a time, and suspects one at a time; what becomes due next.
CREATE INDEX ix_media_cache_due ON {schema}.media_cache (target, rank)
    WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect;
CREATE INDEX ix_media_cache_suspect ON {schema}.media_cache (target, rank)
    WHERE state = 'pending' AND rank IS NOT NULL AND suspect;
CREATE INDEX ix_media_cache_delayed ON {schema}.media_cache (due_at) INCLUDE (target)
    WHERE state = 'pending' AND rank IS NULL;
-- What somebody holds; whose content is ready, or waits for a handle.
CREATE INDEX ix_media_cache_warming ON {schema}.media_cache (leased_at)
    WHERE state = 'warming';
CREATE INDEX ix_media_cache_lookup ON {schema}.media_cache (target, sha256, kind)
    WHERE state = 'ready' AND sha256 IS NOT NULL;
CREATE INDEX ix_media_cache_content ON {schema}.media_cache (target, sha256, kind)
    WHERE state = 'pending' AND sha256 IS NOT NULL;
