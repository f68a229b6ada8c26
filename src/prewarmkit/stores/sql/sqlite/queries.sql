-- Named queries of SqliteStore. `:live` and `:ageing` are the ranks' constants
-- (prewarmkit.stores.lifecycle); `:now` is one reading of the clock a transaction.

-- name: find
SELECT * FROM media_cache WHERE target = :target AND media_key = :media_key AND kind = :kind;

-- name: good_handle
SELECT * FROM media_cache
WHERE state = 'ready' AND target = :target AND sha256 = :sha256 AND kind = :kind
  AND stale = 0 AND (expires_at IS NULL OR expires_at > :now)
LIMIT 1;

-- name: insert
INSERT INTO media_cache (
    target, media_key, kind, state, priority, due_at, rank, size, etag, sha256, content_type, filename,
    handle, handle_kind, unique_id, weak, details, warmed_at, expires_at, created_at, updated_at
) VALUES (
    :target, :media_key, :kind, :state, :priority, :due_at, :rank, :size, :etag, :sha256, :content_type, :filename,
    :handle, :handle_kind, :unique_id, :weak, :details, :warmed_at, :expires_at, :now, :now
);

-- name: describe
UPDATE media_cache
SET size = :size, etag = :etag, sha256 = :sha256, content_type = :content_type, filename = :filename
WHERE id = :id;

-- name: renew
-- Any state but a plain duplicate's goes back to pending; a handle that it has stays, stale.
UPDATE media_cache
SET state = 'pending', priority = :priority, due_at = :due_at, rank = :rank, attempts = 0, reason = NULL,
    stale = (handle IS NOT NULL), leased_at = NULL, lease_until = NULL, updated_at = :now
WHERE id = :id;

-- name: hurry
UPDATE media_cache SET priority = :priority, due_at = :due_at, rank = :rank WHERE id = :id AND state = 'pending';

-- name: share
UPDATE media_cache
SET state = 'ready', attempts = 0, reason = NULL, stale = 0, leased_at = NULL, lease_until = NULL, updated_at = :now,
    handle = :handle, handle_kind = :handle_kind, unique_id = :unique_id, weak = :weak, details = :details,
    warmed_at = :warmed_at, expires_at = :expires_at
WHERE id = :id;

-- name: share_with_waiting
UPDATE media_cache
SET state = 'ready', attempts = 0, reason = NULL, stale = 0, updated_at = :now,
    handle = :handle, handle_kind = :handle_kind, unique_id = :unique_id, weak = :weak, details = :details,
    warmed_at = :now, expires_at = :expires_at
WHERE state = 'pending' AND handle IS NULL AND target = :target AND sha256 = :sha256 AND kind = :kind;

-- name: succeed
UPDATE media_cache
SET state = 'ready', attempts = 0, reason = NULL, stale = 0, leased_at = NULL, lease_until = NULL,
    updated_at = :now, handle = :handle, handle_kind = :handle_kind, unique_id = :unique_id, weak = :weak,
    details = :details, warmed_at = :now, expires_at = :expires_at
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token
RETURNING sha256;

-- name: put_back
UPDATE media_cache
SET state = 'pending', due_at = :due_at,
    rank = :due_at + CASE priority WHEN 0 THEN :live ELSE priority * :ageing END,
    attempts = attempts - :refund, reason = coalesce(:reason, reason), leased_at = NULL, lease_until = NULL,
    updated_at = :now
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token;

-- name: fail
UPDATE media_cache
SET state = 'failed', reason = :reason, leased_at = NULL, lease_until = NULL, updated_at = :now
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token;

-- name: expire
UPDATE media_cache
SET state = 'pending', due_at = :now,
    rank = :now + CASE priority WHEN 0 THEN :live ELSE priority * :ageing END,
    reason = coalesce(reason, 'crash: the lease ran out before an outcome came'),
    leased_at = NULL, lease_until = NULL, updated_at = :now
WHERE state = 'warming' AND lease_until <= :now;

-- name: lease
UPDATE media_cache
SET state = 'warming', token = token + 1, attempts = attempts + 1, leased_at = :now,
    lease_until = :now + :lease_seconds, updated_at = :now
WHERE id IN (
    SELECT id FROM media_cache INDEXED BY ix_media_cache_due  -- in order, never sorted
    WHERE state = 'pending' AND due_at <= :now
      AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)))
    ORDER BY rank, id LIMIT :most
)
RETURNING *;

-- name: heartbeat
UPDATE media_cache SET lease_until = :now + :lease_seconds
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state = 'warming' AND token = :token;

-- name: pending
SELECT count(*) FROM media_cache
WHERE state = 'pending' AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)));

-- name: next_due
SELECT min(moment) FROM (
    SELECT min(due_at) AS moment FROM media_cache INDEXED BY ix_media_cache_delayed WHERE state = 'pending' AND due_at > :now
    UNION ALL
    SELECT min(lease_until) FROM media_cache WHERE state = 'warming'
);

-- name: counts
SELECT target, kind, state, count(*) AS n FROM media_cache
WHERE :targets IS NULL OR target IN (SELECT value FROM json_each(:targets))
GROUP BY target, kind, state;

-- name: has_work
SELECT EXISTS (
    SELECT 1 FROM media_cache
    WHERE state = 'pending' AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)))
) OR EXISTS (
    SELECT 1 FROM media_cache
    WHERE state = 'warming' AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)))
);

-- name: list
SELECT * FROM media_cache
WHERE id > :after AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)))
ORDER BY id LIMIT :most;

-- name: refuse
-- A handle was refused. A row that is queued already only loses it.
UPDATE media_cache
SET handle = NULL, handle_kind = NULL, unique_id = NULL, weak = NULL, details = NULL, warmed_at = NULL,
    expires_at = NULL, stale = 0,
    state = CASE WHEN state IN ('pending', 'warming') THEN state ELSE 'pending' END,
    attempts = CASE WHEN state IN ('pending', 'warming') THEN attempts ELSE 0 END,
    priority = CASE WHEN state IN ('pending', 'warming') THEN priority ELSE 0 END,
    due_at = CASE WHEN state IN ('pending', 'warming') THEN due_at ELSE :now END,
    rank = CASE WHEN state IN ('pending', 'warming') THEN rank ELSE :now + :live END,
    reason = CASE WHEN state IN ('pending', 'warming') THEN reason ELSE 'the handle was refused' END,
    updated_at = :now
WHERE target = :target AND media_key = :media_key AND kind = :kind
  AND handle IS NOT NULL AND (:value IS NULL OR handle = :value);

-- name: drop
DELETE FROM media_cache
WHERE target = :target AND media_key = :media_key AND kind = :kind AND state IN ('ready', 'failed')
  AND handle IS NOT NULL AND (:value IS NULL OR handle = :value);

-- name: requeue
UPDATE media_cache
SET state = 'pending', attempts = 0, due_at = :now,
    rank = :now + CASE priority WHEN 0 THEN :live ELSE priority * :ageing END, updated_at = :now
WHERE id IN (
    SELECT id FROM media_cache
    WHERE state = 'failed'
      AND (:target IS NULL OR target = :target)
      AND (:kind IS NULL OR kind = :kind)
      AND (:reason IS NULL OR substr(reason, 1, length(:reason)) = :reason)
      AND (:keys IS NULL OR media_key IN (SELECT value FROM json_each(:keys)))
    ORDER BY id LIMIT :most
);

-- name: purge
DELETE FROM media_cache
WHERE state IN ('ready', 'failed') AND (:state IS NULL OR state = :state) AND updated_at <= :before;

-- name: state_get
SELECT value FROM prewarm_state WHERE name = :name AND key = :key;

-- name: state_put
INSERT INTO prewarm_state (name, key, value) VALUES (:name, :key, :value)
ON CONFLICT (name, key) DO UPDATE SET value = excluded.value;

-- name: state_forget
DELETE FROM prewarm_state WHERE name = :name AND key = :key;
