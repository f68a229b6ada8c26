-- Enqueue, in steps (prewarmkit.stores.postgres.enqueue): most calls need the first alone.

-- name: version
-- The newest migration that was applied.
SELECT coalesce(max(version), 0) FROM {schema}.prewarm_migrations;

-- name: insert
-- $1 targets, $2 keys, $3 kinds, $4 priorities, $5 delays in seconds, $6 sizes, $7 etags, $8 sha256s,
-- $9 content types, $10 file names, $11 places in the call. In the order of the key, so that two
-- calls never wait for each other's rows; equals are served in that of their places, for which a
-- microsecond lies between them. Answers the numbers of those that were there.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::float8[], $6::bigint[], $7::text[],
                         $8::text[], $9::text[], $10::text[], $11::int[]) WITH ORDINALITY
         AS o (target, media_key, kind, priority, delay, size, etag, sha256, content_type, filename, place, n)
), new AS (
    INSERT INTO {schema}.media_cache
        (target, media_key, kind, priority, due_at, updated_at, rank, state, size, etag, sha256, content_type, filename)
    SELECT target, media_key, kind, priority, statement_timestamp() + delay * interval '1 second', statement_timestamp(),
           CASE WHEN delay <= 0 THEN statement_timestamp() + place * interval '1 microsecond'
               + CASE priority WHEN 0 THEN {live} ELSE priority * {ageing} END END,
           'pending', size, etag, sha256, content_type, filename
    FROM asked
    ON CONFLICT DO NOTHING
    RETURNING target, media_key, kind
)
SELECT asked.n FROM asked
WHERE (SELECT count(*) FROM new) < (SELECT count(*) FROM asked)
  AND NOT EXISTS (
      SELECT FROM new
      WHERE new.target = asked.target AND new.media_key = asked.media_key AND new.kind = asked.kind
  );

-- name: sharable
-- Whether the row has no handle, and another key of the same content has a good one.
m.handle IS NULL AND EXISTS (
           SELECT FROM {schema}.media_cache AS r
           WHERE r.state = 'ready' AND r.sha256 IS NOT NULL AND r.target = m.target
             AND r.sha256 = coalesce(o.asked_sha256, m.sha256) AND r.kind = m.kind
             AND r.handle IS NOT NULL AND NOT r.stale
             AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
       )

-- name: look
-- $1 targets, $2 keys, $3 kinds, $4 sha256s. What an enqueue decides by, without a lock.
SELECT o.n, state, size, etag, sha256, content_type, filename, priority,
       extract(epoch FROM due_at - statement_timestamp())::float8,
       coalesce(expires_at <= statement_timestamp(), false), {sharable}
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
     AS o (target, media_key, kind, asked_sha256, n)
JOIN {schema}.media_cache AS m
  ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind;

-- name: lock
-- As `look`, of rows that will change; in one order, so that two calls never wait for each other.
SELECT o.n, state, size, etag, sha256, content_type, filename, priority,
       extract(epoch FROM due_at - statement_timestamp())::float8,
       coalesce(expires_at <= statement_timestamp(), false), {sharable}
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
     AS o (target, media_key, kind, asked_sha256, n)
JOIN {schema}.media_cache AS m
  ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
ORDER BY m.target, m.media_key, m.kind
FOR NO KEY UPDATE OF m;

-- name: describe
-- $1 targets, $2 keys, $3 kinds, $4 sizes, $5 etags, $6 sha256s, $7 content types, $8 file names.
UPDATE {schema}.media_cache AS m
SET size = o.size, etag = o.etag, sha256 = o.sha256, content_type = o.content_type, filename = o.filename
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[])
     AS o (target, media_key, kind, size, etag, sha256, content_type, filename)
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind;

-- name: share
-- $1 targets, $2 keys, $3 kinds. Rows without a handle take over that of the same content under
-- another key; answers the places of those that did.
UPDATE {schema}.media_cache AS m
SET state = 'ready', rank = NULL, attempts = 0, reason = NULL, stale = false, suspect = false, leased_at = NULL,
    lease_until = NULL, updated_at = statement_timestamp(), handle = good.handle, handle_kind = good.handle_kind,
    unique_id = good.unique_id, weak = good.weak, details = good.details, warmed_at = good.warmed_at,
    expires_at = good.expires_at, renew_at = good.renew_at
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS o (target, media_key, kind, n)
JOIN {schema}.media_cache AS mine
  ON mine.target = o.target AND mine.media_key = o.media_key AND mine.kind = o.kind
CROSS JOIN LATERAL (
    SELECT r.* FROM {schema}.media_cache AS r
    WHERE r.state = 'ready' AND r.sha256 IS NOT NULL AND r.target = mine.target AND r.sha256 = mine.sha256
      AND r.kind = mine.kind AND r.handle IS NOT NULL AND NOT r.stale
      AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
    LIMIT 1
) AS good
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind AND m.handle IS NULL
RETURNING o.n;

-- name: renew
-- $1 targets, $2 keys, $3 kinds, $4 priorities, $5 delays, $6 whether by a new version. Due again; a handle
-- that it has stays, stale.
UPDATE {schema}.media_cache AS m
SET state = 'pending', priority = o.priority, due_at = statement_timestamp() + o.delay * interval '1 second',
    rank = CASE WHEN o.delay <= 0 THEN statement_timestamp() + o.n * interval '1 microsecond'
        + CASE o.priority WHEN 0 THEN {live} ELSE o.priority * {ageing} END END,
    attempts = 0, reason = NULL, stale = m.handle IS NOT NULL, suspect = m.suspect AND NOT o.is_new, leased_at = NULL, lease_until = NULL,
    renew_at = NULL, updated_at = statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::float8[], $6::boolean[])
     WITH ORDINALITY AS o (target, media_key, kind, priority, delay, is_new, n)
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind;

-- name: hurry
-- $1 targets, $2 keys, $3 kinds, $4 priorities, $5 delays. A better priority, a sooner time.
UPDATE {schema}.media_cache AS m
SET priority = o.priority, due_at = o.due_at,
    rank = CASE WHEN o.due_at <= statement_timestamp()
        THEN o.due_at + CASE o.priority WHEN 0 THEN {live} ELSE o.priority * {ageing} END END
FROM (
    SELECT w.ctid AS place, least(w.priority, a.priority) AS priority,
           least(w.due_at, statement_timestamp() + a.delay * interval '1 second') AS due_at
    FROM unnest($1::text[], $2::text[], $3::text[], $4::smallint[], $5::float8[])
         AS a (target, media_key, kind, priority, delay)
    JOIN {schema}.media_cache AS w ON w.target = a.target AND w.media_key = a.media_key AND w.kind = a.kind
    WHERE w.state = 'pending'
) AS o
WHERE m.ctid = o.place AND m.state = 'pending';

-- name: bound
-- Before rows are counted for a bound: who waits here counts what those before it have put in.
SELECT pg_advisory_xact_lock(hashtextextended({tokens}, 7216));

-- name: pending
-- $1 a bound. Rows that wait, counted to one more than that; and the seconds that it took.
SELECT count(*), extract(epoch FROM clock_timestamp() - statement_timestamp())::float8
FROM (
    SELECT FROM {schema}.media_cache WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect
    UNION ALL
    SELECT FROM {schema}.media_cache WHERE state = 'pending' AND rank IS NOT NULL AND suspect
    UNION ALL
    SELECT FROM {schema}.media_cache WHERE state = 'pending' AND rank IS NULL
    LIMIT $1::bigint + 1
) AS o;
