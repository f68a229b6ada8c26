-- What hosts read and what people change by hand.

-- name: looked
-- The columns that a look-up tells, in each query that has {{looked}}. `extract` would make numerics of the times first.
state, reason, attempts,
       CASE WHEN state = 'pending' THEN date_part('epoch', due_at - statement_timestamp()) END,
       CASE WHEN state = 'failed' THEN date_part('epoch', statement_timestamp() - updated_at) END,
       size, etag, sha256, content_type, filename, handle, handle_kind, unique_id, weak::text, details::text,
       stale OR coalesce(expires_at <= statement_timestamp(), false),
       date_part('epoch', warmed_at), date_part('epoch', expires_at)

-- name: find
-- $1 target, $2 key, $3 kind. One probe of the primary key, no lock.
SELECT 1::bigint, {looked}
FROM {schema}.media_cache WHERE target = $1::text AND media_key = $2::text AND kind = $3::text;

-- name: find_many
-- $1 targets, $2 keys, $3 kinds.
SELECT o.n, {looked}
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS o (target, media_key, kind, n)
JOIN {schema}.media_cache AS m
  ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind;

-- name: list
-- $1 states, $2 targets, $3 target, $4 key and $5 kind of the row before, $6 most.
SELECT 1::bigint, {looked},
       target, media_key, kind, priority, extract(epoch FROM lease_until - statement_timestamp())::float8,
       extract(epoch FROM coalesce(leased_at, updated_at))::float8,
       extract(epoch FROM renew_at - statement_timestamp())::float8
FROM {schema}.media_cache
WHERE (target, media_key, kind) > ($3::text, $4::text, $5::text)
  AND ($1::text[] IS NULL OR state = ANY ($1::text[]))
  AND ($2::text[] IS NULL OR target = ANY ($2::text[]))
ORDER BY target, media_key, kind LIMIT $6::int;

-- name: list_failed
-- As `list`, by the index of those that failed.
SELECT 1::bigint, {looked},
       target, media_key, kind, priority, extract(epoch FROM lease_until - statement_timestamp())::float8,
       extract(epoch FROM coalesce(leased_at, updated_at))::float8,
       extract(epoch FROM renew_at - statement_timestamp())::float8
FROM {schema}.media_cache
WHERE state = 'failed' AND $1::text[] IS NOT NULL
  AND (target, media_key, kind) > ($3::text, $4::text, $5::text)
  AND ($2::text[] IS NULL OR target = ANY ($2::text[]))
ORDER BY target, media_key, kind LIMIT $6::int;

-- name: counts
-- $1 targets.
SELECT target, kind, state, count(*) FROM {schema}.media_cache
WHERE $1::text[] IS NULL OR target = ANY ($1::text[])
GROUP BY target, kind, state;

-- name: has_work
-- $1 targets.
SELECT EXISTS (
    SELECT FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect AND ($1::text[] IS NULL OR target = ANY ($1::text[]))
) OR EXISTS (
    SELECT FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NOT NULL AND suspect AND ($1::text[] IS NULL OR target = ANY ($1::text[]))
) OR EXISTS (
    SELECT FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NULL AND ($1::text[] IS NULL OR target = ANY ($1::text[]))
) OR EXISTS (
    SELECT FROM {schema}.media_cache
    WHERE state = 'warming' AND ($1::text[] IS NULL OR target = ANY ($1::text[]))
);

-- name: refused
-- $1 target, $2 key, $3 kind, $4 the handle that was refused, NULL for whichever it is. The row, and the
-- ready rows that have that handle for the same content: left to them, it would come back to this one.
-- These are looked up by content one by one (LATERAL), whatever the statistics promise of a walk over all.
-- All are changed by their keys: others may have changed them since this statement began.
named AS MATERIALIZED (
    SELECT ctid AS place, state, target, media_key, kind, sha256, handle FROM {schema}.media_cache
    WHERE target = $1::text AND media_key = $2::text AND kind = $3::text
      AND handle IS NOT NULL AND ($4::text IS NULL OR handle = $4::text)
    FOR NO KEY UPDATE
), same AS MATERIALIZED (
    SELECT other.* FROM named CROSS JOIN LATERAL (
        SELECT m.target, m.media_key, m.kind FROM {schema}.media_cache AS m
        WHERE m.target = named.target AND m.sha256 = named.sha256 AND m.kind = named.kind
          AND m.state = 'ready' AND m.sha256 IS NOT NULL AND m.handle = named.handle AND m.ctid <> named.place
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS other
)

-- name: refuse
-- As `refused`. A row that is queued already only loses its handle. Whether it is the row named, and which.
WITH {refused}, others AS (
    UPDATE {schema}.media_cache AS m
    SET handle = NULL, handle_kind = NULL, unique_id = NULL, weak = NULL, details = NULL, warmed_at = NULL,
        expires_at = NULL, stale = false, renew_at = NULL, state = 'pending', attempts = 0, due_at = statement_timestamp(),
        rank = statement_timestamp() + CASE priority WHEN 0 THEN {live} ELSE priority * {ageing} END,
        reason = 'the handle was refused', updated_at = statement_timestamp()
    FROM same WHERE m.target = same.target AND m.media_key = same.media_key AND m.kind = same.kind
    RETURNING m.target, m.media_key, m.kind
), own AS (
    UPDATE {schema}.media_cache AS m
    SET handle = NULL, handle_kind = NULL, unique_id = NULL, weak = NULL, details = NULL, warmed_at = NULL,
        expires_at = NULL, stale = false, renew_at = NULL,
        state = CASE WHEN m.state IN ('pending', 'warming') THEN m.state ELSE 'pending' END,
        attempts = CASE WHEN m.state IN ('pending', 'warming') THEN attempts ELSE 0 END,
        priority = CASE WHEN m.state IN ('pending', 'warming') THEN priority ELSE 0 END,
        due_at = CASE WHEN m.state IN ('pending', 'warming') THEN due_at ELSE statement_timestamp() END,
        rank = CASE WHEN m.state IN ('pending', 'warming') THEN rank ELSE statement_timestamp() + {live} END,
        reason = CASE WHEN m.state IN ('pending', 'warming') THEN reason ELSE 'the handle was refused' END,
        updated_at = statement_timestamp()
    FROM named WHERE m.target = named.target AND m.media_key = named.media_key AND m.kind = named.kind
    RETURNING m.target, m.media_key, m.kind
)
SELECT true, * FROM own UNION ALL SELECT false, * FROM others;

-- name: drop
-- As `refused`, for a row that nobody wants any more.
WITH {refused}, others AS (
    DELETE FROM {schema}.media_cache AS m USING same, named
    WHERE m.target = same.target AND m.media_key = same.media_key AND m.kind = same.kind
      AND named.state IN ('ready', 'failed')
    RETURNING m.target, m.media_key, m.kind
), own AS (
    DELETE FROM {schema}.media_cache AS m USING named
    WHERE m.target = named.target AND m.media_key = named.media_key AND m.kind = named.kind
      AND named.state IN ('ready', 'failed')
    RETURNING m.target, m.media_key, m.kind
)
SELECT true, * FROM own UNION ALL SELECT false, * FROM others;

-- name: requeue
-- $1 target, $2 kind, $3 how the reason begins, $4 keys; NULL for any. $5 target, $6 key and $7 kind of the last one
-- that was requeued, $8 most. How many, and the last one.
WITH chosen AS MATERIALIZED (
    SELECT target, media_key, kind FROM {schema}.media_cache
    WHERE state = 'failed' AND (target, media_key, kind) > ($5::text, $6::text, $7::text)
      AND ($1::text IS NULL OR target = $1::text)
      AND ($2::text IS NULL OR kind = $2::text)
      AND ($3::text IS NULL OR starts_with(reason, $3::text))
      AND ($4::text[] IS NULL OR media_key = ANY ($4::text[]))
    ORDER BY target, media_key, kind LIMIT $8::bigint FOR NO KEY UPDATE SKIP LOCKED
), changed AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'pending', attempts = 0, due_at = statement_timestamp(),
        rank = statement_timestamp() + CASE priority WHEN 0 THEN {live} ELSE priority * {ageing} END,
        updated_at = statement_timestamp()
    FROM chosen WHERE m.target = chosen.target AND m.media_key = chosen.media_key AND m.kind = chosen.kind
)
SELECT chosen.many, last.target, last.media_key, last.kind
FROM (SELECT count(*) AS many FROM chosen) AS chosen
LEFT JOIN (SELECT target, media_key, kind FROM chosen ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT 1) AS last ON true;

-- name: purge
-- $1 seconds, $2 state; NULL for both. $3 target, $4 key and $5 kind of the last row that was looked at, $6 how many
-- to look at. How many were removed, how many looked at, and the last one. A row that changes meanwhile stays.
WITH looked_at AS MATERIALIZED (
    SELECT target, media_key, kind,
           state IN ('ready', 'failed') AND ($2::text IS NULL OR state = $2::text)
           AND updated_at <= statement_timestamp() - $1::float8 * interval '1 second' AS is_old
    FROM {schema}.media_cache WHERE (target, media_key, kind) > ($3::text, $4::text, $5::text)
    ORDER BY target, media_key, kind LIMIT $6::bigint
), old AS MATERIALIZED (
    SELECT mine.place FROM looked_at AS l CROSS JOIN LATERAL (
        SELECT m.ctid AS place FROM {schema}.media_cache AS m
        WHERE m.target = l.target AND m.media_key = l.media_key AND m.kind = l.kind
          AND m.state IN ('ready', 'failed')
          AND m.updated_at <= statement_timestamp() - $1::float8 * interval '1 second'
        FOR UPDATE SKIP LOCKED
    ) AS mine
    WHERE l.is_old
), removed AS (
    DELETE FROM {schema}.media_cache AS m USING old WHERE m.ctid = old.place RETURNING 1
)
SELECT (SELECT count(*) FROM removed), (SELECT count(*) FROM looked_at), last.*
FROM (SELECT 1) AS one
LEFT JOIN (SELECT target, media_key, kind FROM looked_at ORDER BY 1 DESC, 2 DESC, 3 DESC LIMIT 1) AS last ON true;

-- name: state_get
-- $1 name, $2 key.
SELECT value FROM {schema}.prewarm_state WHERE name = $1::text AND key = $2::text;

-- name: state_put
-- $1 name, $2 key, $3 value.
INSERT INTO {schema}.prewarm_state (name, key, value) VALUES ($1::text, $2::text, $3::text)
ON CONFLICT (name, key) DO UPDATE SET value = excluded.value;

-- name: state_forget
-- $1 name, $2 key.
DELETE FROM {schema}.prewarm_state WHERE name = $1::text AND key = $2::text;

-- name: notify_all
-- $1 channel, $2 payloads. Hints, which go out at the commit.
SELECT pg_notify($1::text, payload) FROM unnest($2::text[]) AS o (payload);
