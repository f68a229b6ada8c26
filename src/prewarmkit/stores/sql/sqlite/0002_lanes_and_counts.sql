-- A lane is (target, suspect, priority): inside it rows leave in the order of their times, so
-- a lease probes each lane once and never walks over what it may not take. `suspect` marks
-- a row whose last lease ran out. `delayed` marks one that was not due when it was put in.
DROP INDEX ix_media_cache_due;
DROP INDEX ix_media_cache_delayed;
DROP INDEX ix_media_cache_warming;
DROP INDEX ix_media_cache_lookup;
ALTER TABLE media_cache DROP COLUMN rank;
ALTER TABLE media_cache ADD COLUMN suspect INTEGER NOT NULL DEFAULT 0;
ALTER TABLE media_cache ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0;
UPDATE media_cache SET delayed = 1 WHERE state = 'pending';

CREATE INDEX ix_media_cache_due ON media_cache (target, suspect, priority, due_at) WHERE state = 'pending';
CREATE INDEX ix_media_cache_delayed ON media_cache (due_at) WHERE state = 'pending' AND delayed = 1;
-- Whose lease runs out next. (In PostgreSQL a heartbeat writes no index: here one costs little.)
CREATE INDEX ix_media_cache_warming ON media_cache (lease_until) WHERE state = 'warming';
CREATE INDEX ix_media_cache_lookup ON media_cache (target, sha256, kind)
    WHERE state = 'ready' AND sha256 IS NOT NULL;
-- What has ended, the oldest first: for purge and requeue.
CREATE INDEX ix_media_cache_ended ON media_cache (state, updated_at) WHERE state IN ('ready', 'failed');

-- How many rows there are. Triggers keep it true for whoever writes, a person with a shell too.
CREATE TABLE prewarm_counts (
    target  TEXT NOT NULL,
    kind    TEXT NOT NULL,
    pending INTEGER NOT NULL,
    warming INTEGER NOT NULL,
    ready   INTEGER NOT NULL,
    failed  INTEGER NOT NULL,
    PRIMARY KEY (target, kind)
) WITHOUT ROWID;
INSERT INTO prewarm_counts
SELECT target, kind, sum(state = 'pending'), sum(state = 'warming'), sum(state = 'ready'), sum(state = 'failed')
FROM media_cache GROUP BY target, kind;

CREATE TRIGGER media_cache_came AFTER INSERT ON media_cache BEGIN
    INSERT INTO prewarm_counts VALUES (
        new.target, new.kind, new.state = 'pending', new.state = 'warming', new.state = 'ready', new.state = 'failed'
    ) ON CONFLICT (target, kind) DO UPDATE SET
        pending = pending + excluded.pending, warming = warming + excluded.warming,
        ready = ready + excluded.ready, failed = failed + excluded.failed;
END;
CREATE TRIGGER media_cache_moved AFTER UPDATE OF state ON media_cache WHEN old.state <> new.state BEGIN
    UPDATE prewarm_counts SET
        pending = pending + (new.state = 'pending') - (old.state = 'pending'),
        warming = warming + (new.state = 'warming') - (old.state = 'warming'),
        ready = ready + (new.state = 'ready') - (old.state = 'ready'),
        failed = failed + (new.state = 'failed') - (old.state = 'failed')
    WHERE target = new.target AND kind = new.kind;
END;
CREATE TRIGGER media_cache_went AFTER DELETE ON media_cache BEGIN
    UPDATE prewarm_counts SET
        pending = pending - (old.state = 'pending'), warming = warming - (old.state = 'warming'),
        ready = ready - (old.state = 'ready'), failed = failed - (old.state = 'failed')
    WHERE target = old.target AND kind = old.kind;
END;

-- The last token given. It outlives the rows: one that is removed and put in anew must not meet its old leases.
CREATE TABLE prewarm_fence (token INTEGER NOT NULL);
INSERT INTO prewarm_fence SELECT coalesce(max(token), 0) FROM media_cache;

-- Where a boot's clock stands on the store's time: see prewarmkit.stores.clock.
CREATE TABLE prewarm_clock (
    boot   TEXT PRIMARY KEY,
    offset REAL NOT NULL,
    seen   REAL NOT NULL
) WITHOUT ROWID;
