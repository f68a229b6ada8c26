-- Named queries of SqliteStore. `:now` is one reading of the store's clock a transaction,
-- `:wall` one of the machine's calendar: spans are measured by the first, `expires_at` by the second.

-- name: find
SELECT * FROM media_cache WHERE target = :target AND media_key = :media_key AND kind = :kind;

-- name: good_handle
SELECT * FROM media_cache
WHERE state = 'ready' AND target = :target AND sha256 = :sha256 AND kind = :kind
  AND stale = 0 AND (expires_at IS NULL OR expires_at > :wall)
LIMIT 1;

-- name: insert
INSERT INTO media_cache (
    target, media_key, kind, size, etag, sha256, content_type, filename, state, priority, due_at, delayed,
    created_at, updated_at
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, ?, ?, ?, ?)
ON CONFLICT (target, media_key, kind) DO NOTHING;

-- name: describe
UPDATE media_cache
SET size = :size, etag = :etag, sha256 = :sha256, content_type = :content_type, filename = :filename
WHERE id = :id;

-- name: renew
-- Any state but a plain duplicate's goes back to pending; a handle that it has stays, stale.
UPDATE media_cache
SET state = 'pending', priority = :priority, due_at = :due_at, delayed = :delayed, attempts = 0, reason = NULL,
    suspect = CASE WHEN :is_new THEN 0 ELSE suspect END,
    stale = (handle IS NOT NULL), leased_at = NULL, lease_until = NULL, renew_at = NULL, updated_at = :now
WHERE id = :id;

-- name: hurry
UPDATE media_cache SET priority = :priority, due_at = :due_at, delayed = :delayed
WHERE id = :id AND state = 'pending';

-- name: share
UPDATE media_cache
SET state = 'ready', attempts = 0, reason = NULL, stale = 0, suspect = 0, leased_at = NULL, lease_until = NULL,
    updated_at = :now, handle = :handle, handle_kind = :handle_kind, unique_id = :unique_id, weak = :weak,
    details = :details, warmed_at = :warmed_at, expires_at = :expires_at, renew_at = :renew_at
WHERE id = :id;

-- name: share_with_waiting
-- Those that have no handle, or one that is to be renewed.
UPDATE media_cache
SET state = 'ready', attempts = 0, reason = NULL, stale = 0, suspect = 0, updated_at = :now,
    handle = :handle, handle_kind = :handle_kind, unique_id = :unique_id, weak = :weak, details = :details,
    warmed_at = :warmed_at, expires_at = :expires_at, renew_at = :renew_at
WHERE state = 'pending' AND stale = 0 AND target = :target AND sha256 = :sha256 AND kind = :kind;

-- name: succeed
UPDATE media_cache
SET state = 'ready', attempts = 0, reason = NULL, stale = 0, suspect = 0, leased_at = NULL, lease_until = NULL,
    updated_at = :now, handle = :handle, handle_kind = :handle_kind, unique_id = :unique_id, weak = :weak,
    details = :details, warmed_at = :warmed_at, expires_at = :expires_at, renew_at = :renew_at
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token
RETURNING sha256;

-- name: put_back
-- An outcome clears a suspect: its process lived to tell it. One that never began (no reason) stays what it was.
UPDATE media_cache
SET state = 'pending', due_at = :due_at, delayed = :delayed, attempts = attempts - :refund,
    suspect = CASE WHEN :reason IS NULL THEN suspect ELSE 0 END, reason = coalesce(:reason, reason),
    leased_at = NULL, lease_until = NULL, updated_at = :now
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token;

-- name: fail
UPDATE media_cache
SET state = 'failed', reason = :reason, leased_at = NULL, lease_until = NULL, updated_at = :now
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token;

-- name: expire
UPDATE media_cache INDEXED BY ix_media_cache_warming
SET state = 'pending', due_at = :now, delayed = 0, suspect = 1,
    reason = coalesce(reason, 'crash: the lease ran out before an outcome came'),
    leased_at = NULL, lease_until = NULL, updated_at = :now
WHERE state = 'warming' AND lease_until <= :now;

-- name: renew_due
-- Ready rows whose handle is to be renewed, at a background priority; the handle stays as it is.
UPDATE media_cache
SET state = 'pending', priority = max(priority, :priority), due_at = :now, delayed = 0, attempts = 0,
    renew_at = NULL, updated_at = :now
WHERE id IN (
    SELECT id FROM media_cache INDEXED BY ix_media_cache_renewal
    WHERE state = 'ready' AND renew_at IS NOT NULL AND renew_at <= :now ORDER BY renew_at LIMIT :most
);

-- name: waiting
SELECT target, sum(pending) FROM prewarm_counts GROUP BY target HAVING sum(pending) > 0;

-- name: lanes
-- The lanes of some targets that have rows: one probe for each, and one beyond the last.
WITH RECURSIVE lane (target, suspect, priority) AS (
    SELECT wanted.value, mark.column1, (
        SELECT min(priority) FROM media_cache INDEXED BY ix_media_cache_due
        WHERE state = 'pending' AND target = wanted.value AND suspect = mark.column1
    )
    FROM json_each(:targets) AS wanted, (VALUES (0), (1)) AS mark
    UNION ALL
    SELECT target, suspect, (
        SELECT min(priority) FROM media_cache AS next INDEXED BY ix_media_cache_due
        WHERE state = 'pending' AND next.target = lane.target AND next.suspect = lane.suspect
          AND next.priority > lane.priority
    )
    FROM lane WHERE priority IS NOT NULL
)
SELECT target, suspect, priority FROM lane WHERE priority IS NOT NULL ORDER BY priority;

-- name: lane
-- The head of one lane; of two rows with one time the older row comes first.
SELECT due_at, id FROM media_cache INDEXED BY ix_media_cache_due
WHERE state = 'pending' AND target = ? AND suspect = ? AND priority = ? AND due_at <= ?
ORDER BY due_at, id LIMIT ?;

-- name: next_token
UPDATE prewarm_fence SET token = token + 1 RETURNING token;

-- name: lease
UPDATE media_cache
SET state = 'warming', token = :token, attempts = attempts + 1, leased_at = :now,
    lease_until = :now + :lease_seconds, updated_at = :now
WHERE id IN (SELECT value FROM json_each(:ids))
RETURNING id, target, media_key, kind, attempts, priority, due_at, size, etag, sha256, content_type, filename;

-- name: is_held
SELECT 1 FROM media_cache WHERE id = ? AND token = ? AND state = 'warming';

-- name: heartbeat
UPDATE media_cache SET lease_until = :now + :lease_seconds
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token;

-- name: next_due
SELECT min(moment) FROM (
    SELECT min(due_at) AS moment FROM media_cache INDEXED BY ix_media_cache_delayed
    WHERE state = 'pending' AND delayed = 1 AND due_at > :now
    UNION ALL
    SELECT min(lease_until) FROM media_cache INDEXED BY ix_media_cache_warming WHERE state = 'warming'
    UNION ALL
    SELECT min(renew_at) FROM media_cache INDEXED BY ix_media_cache_renewal
    WHERE state = 'ready' AND renew_at IS NOT NULL
);

-- name: counts
SELECT target, kind, pending, warming, ready, failed FROM prewarm_counts
WHERE :targets IS NULL OR target IN (SELECT value FROM json_each(:targets));

-- name: has_work
SELECT EXISTS (
    SELECT 1 FROM prewarm_counts
    WHERE pending + warming > 0 AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)))
);

-- name: refuse_same
-- A handle was refused: ready rows that have it for the same content lose it too. Left to them, it would
-- come back to the one that is meant.
UPDATE media_cache
SET handle = NULL, handle_kind = NULL, unique_id = NULL, weak = NULL, details = NULL, warmed_at = NULL,
    expires_at = NULL, stale = 0, renew_at = NULL, state = 'pending', attempts = 0, due_at = :now, delayed = 0,
    reason = 'the handle was refused', updated_at = :now
WHERE id IN (
    SELECT other.id FROM media_cache AS named JOIN media_cache AS other
      ON other.target = named.target AND other.sha256 = named.sha256 AND other.kind = named.kind
     AND other.handle = named.handle AND other.state = 'ready' AND other.id <> named.id
    WHERE named.target = :target AND named.media_key = :media_key AND named.kind = :kind
      AND (:value IS NULL OR named.handle = :value)
);

-- name: drop_same
-- As `refuse_same`, for rows that nobody wants any more.
DELETE FROM media_cache
WHERE id IN (
    SELECT other.id FROM media_cache AS named JOIN media_cache AS other
      ON other.target = named.target AND other.sha256 = named.sha256 AND other.kind = named.kind
     AND other.handle = named.handle AND other.state = 'ready' AND other.id <> named.id
    WHERE named.target = :target AND named.media_key = :media_key AND named.kind = :kind
      AND named.state IN ('ready', 'failed') AND (:value IS NULL OR named.handle = :value)
);

-- name: refuse
-- A handle was refused. A row that is queued already only loses it.
UPDATE media_cache
SET handle = NULL, handle_kind = NULL, unique_id = NULL, weak = NULL, details = NULL, warmed_at = NULL,
    expires_at = NULL, stale = 0, renew_at = NULL,
    state = CASE WHEN state IN ('pending', 'warming') THEN state ELSE 'pending' END,
    attempts = CASE WHEN state IN ('pending', 'warming') THEN attempts ELSE 0 END,
    priority = CASE WHEN state IN ('pending', 'warming') THEN priority ELSE 0 END,
    due_at = CASE WHEN state IN ('pending', 'warming') THEN due_at ELSE :now END,
    delayed = CASE WHEN state IN ('pending', 'warming') THEN delayed ELSE 0 END,
    reason = CASE WHEN state IN ('pending', 'warming') THEN reason ELSE 'the handle was refused' END,
    updated_at = :now
WHERE target = :target AND media_key = :media_key AND kind = :kind
  AND handle IS NOT NULL AND (:value IS NULL OR handle = :value);

-- name: drop
DELETE FROM media_cache
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state IN ('ready', 'failed')
  AND handle IS NOT NULL AND (:value IS NULL OR handle = :value);

-- name: failed
-- A window of failed rows, and which of them are meant.
SELECT updated_at, id,
       (:target IS NULL OR target = :target) AND (:kind IS NULL OR kind = :kind)
       AND (:reason IS NULL OR substr(reason, 1, length(:reason)) = :reason)
       AND (:keys IS NULL OR media_key IN (SELECT value FROM json_each(:keys))) AS is_meant
FROM media_cache INDEXED BY ix_media_cache_ended
WHERE state IN ('ready', 'failed') AND state = 'failed' AND (updated_at, id) > (:after, :after_id)
ORDER BY updated_at, id LIMIT :window;

-- name: requeue
UPDATE media_cache SET state = 'pending', attempts = 0, due_at = :now, delayed = 0, updated_at = :now
WHERE state = 'failed' AND id IN (SELECT value FROM json_each(:ids));

-- name: purge
DELETE FROM media_cache WHERE id IN (
    SELECT id FROM media_cache INDEXED BY ix_media_cache_ended
    WHERE state IN ('ready', 'failed') AND state = :state AND updated_at <= :before
    ORDER BY updated_at LIMIT :window
);

-- name: anchors
SELECT boot, offset, seen FROM prewarm_clock;

-- name: anchor
INSERT INTO prewarm_clock (boot, offset, seen) VALUES (:boot, :offset, :seen)
ON CONFLICT (boot) DO UPDATE SET seen = excluded.seen;

-- name: forget_anchors
DELETE FROM prewarm_clock WHERE seen < :before AND boot <> :boot;

-- name: latest
-- No row was touched later than this.
SELECT max(moment) FROM (
    SELECT max(seen) AS moment FROM prewarm_clock
    UNION ALL
    SELECT max(written_at) FROM prewarm_budget
    UNION ALL
    SELECT max(updated_at) FROM media_cache INDEXED BY ix_media_cache_ended
    WHERE state IN ('ready', 'failed') AND state = 'ready'
);

-- name: state_get
SELECT value FROM prewarm_state WHERE name = :name AND key = :key;

-- name: state_put
INSERT INTO prewarm_state (name, key, value) VALUES (:name, :key, :value)
ON CONFLICT (name, key) DO UPDATE SET value = excluded.value;

-- name: state_forget
DELETE FROM prewarm_state WHERE name = :name AND key = :key;
