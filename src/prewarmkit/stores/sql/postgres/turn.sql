-- What a pump does: settle, sweep, lease, hold. Each statement names its parameters.
-- {live} and {ageing} are the order's constants (prewarmkit.stores.lifecycle).

-- name: plan
-- Each statement below has one good plan, by index. Statistics of a table that fills and
-- empties in minutes would talk the planner into others. Holds for this transaction only.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_sort', 'off', true), set_config('jit', 'off', true),
       set_config('lock_timeout', '250ms', true);

-- name: brief
-- Before an outcome that is told alone.
SELECT set_config('lock_timeout', '20ms', true);

-- name: landed
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 handles, NULL for what was no success. Rows that
-- are where an outcome with this token would have moved them, and that nobody has claimed since.
SELECT o.n
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
     WITH ORDINALITY AS o (target, media_key, kind, token, handle, n)
JOIN {schema}.media_cache AS m
  ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind AND m.token = o.token
WHERE CASE WHEN o.handle IS NULL THEN m.state IN ('pending', 'failed')
           ELSE m.state = 'ready' AND m.handle = o.handle END;

-- name: succeed
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 handles, $6 delivered kinds, $7 unique ids,
-- $8 weak, $9 details, $10 expiry in POSIX seconds. Answers the places of those that applied.
-- Waiting rows of the same content become ready with them.
WITH settled AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'ready', rank = NULL, attempts = 0, reason = NULL, stale = false, suspect = false,
        leased_at = NULL, lease_until = NULL, updated_at = statement_timestamp(), handle = o.handle,
        handle_kind = o.handle_kind, unique_id = o.unique_id, weak = o.weak::json, details = o.details::json,
        warmed_at = statement_timestamp(), expires_at = to_timestamp(o.expires)
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::float8[]) WITH ORDINALITY
         AS o (target, media_key, kind, token, handle, handle_kind, unique_id, weak, details, expires, n)
    WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
      AND m.state = 'warming' AND m.token = o.token
    RETURNING o.n, m.target, m.kind, m.sha256, m.handle, m.handle_kind, m.unique_id, m.weak, m.details,
              m.expires_at
), shared AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'ready', rank = NULL, attempts = 0, reason = NULL, stale = false, suspect = false,
        updated_at = statement_timestamp(), handle = s.handle, handle_kind = s.handle_kind,
        unique_id = s.unique_id, weak = s.weak, details = s.details, warmed_at = statement_timestamp(),
        expires_at = s.expires_at
    FROM (
        SELECT w.ctid AS place, settled.*
        FROM settled JOIN {schema}.media_cache AS w
          ON w.target = settled.target AND w.sha256 = settled.sha256 AND w.kind = settled.kind
        WHERE w.state = 'pending' AND w.sha256 IS NOT NULL AND w.handle IS NULL
        FOR NO KEY UPDATE OF w SKIP LOCKED
    ) AS s
    WHERE m.ctid = s.place
)
SELECT n FROM settled;

-- name: put_back
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 delays in seconds, $6 reasons, $7 attempts to give back.
-- A reason clears a suspect: its process lived to tell it. One that never began stays what it was.
UPDATE {schema}.media_cache AS m
SET state = 'pending', due_at = statement_timestamp() + o.delay * interval '1 second',
    rank = CASE WHEN o.delay <= 0 THEN
        statement_timestamp() + CASE m.priority WHEN 0 THEN {live} ELSE m.priority * {ageing} END END,
    attempts = m.attempts - o.refund, reason = coalesce(o.reason, m.reason),
    suspect = m.suspect AND o.reason IS NULL, leased_at = NULL,
    lease_until = NULL, updated_at = statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::float8[], $6::text[], $7::smallint[])
     WITH ORDINALITY AS o (target, media_key, kind, token, delay, reason, refund, n)
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
  AND m.state = 'warming' AND m.token = o.token
RETURNING o.n;

-- name: fail
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 reasons.
UPDATE {schema}.media_cache AS m
SET state = 'failed', rank = NULL, reason = o.reason, leased_at = NULL, lease_until = NULL,
    updated_at = statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
     WITH ORDINALITY AS o (target, media_key, kind, token, reason, n)
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
  AND m.state = 'warming' AND m.token = o.token
RETURNING o.n;

-- name: sweep
-- Takes back leases that ran out, and puts delayed rows whose time has come into the queue.
-- Of the leases it meets those whose time had come when somebody last looked; one that was held
-- on since is filed under its new time. One without a rank was given by an older version.
-- All pass over rows that somebody works on; the next sweep meets them again.
WITH filed AS MATERIALIZED (
    SELECT ctid AS place FROM {schema}.media_cache
    WHERE state = 'warming' AND rank <= statement_timestamp()
    ORDER BY rank LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
), unfiled AS MATERIALIZED (
    SELECT ctid AS place FROM {schema}.media_cache
    WHERE state = 'warming' AND rank IS NULL
    LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
), leases AS (
    SELECT place FROM filed UNION ALL SELECT place FROM unfiled
), expired AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'pending', due_at = statement_timestamp(),
        rank = statement_timestamp() + CASE priority WHEN 0 THEN {live} ELSE priority * {ageing} END,
        reason = coalesce(reason, 'crash: the lease ran out before an outcome came'),
        suspect = true, leased_at = NULL, lease_until = NULL, updated_at = statement_timestamp()
    FROM leases WHERE m.ctid = leases.place AND m.lease_until <= statement_timestamp()
), held AS (
    UPDATE {schema}.media_cache AS m SET rank = lease_until
    FROM leases WHERE m.ctid = leases.place AND m.lease_until > statement_timestamp()
), due AS MATERIALIZED (
    SELECT ctid AS place FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NULL AND due_at <= statement_timestamp()
    ORDER BY due_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {schema}.media_cache AS m
SET rank = due_at + CASE priority WHEN 0 THEN {live} ELSE priority * {ageing} END
FROM due WHERE m.ctid = due.place;

-- name: lease_one
-- $1 target, $2 most, $3 lease seconds; of the suspect that was handed out last $4 target, $5 key, $6 kind,
-- $7 token, or NULLs. A suspect comes only while none is held, and in its turn: if its rank is among the first.
-- Places are even, and odd for a suspect.
WITH suspect AS MATERIALIZED (
    SELECT m.ctid AS place, m.rank FROM {schema}.media_cache AS m
    WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target = $1::text
      AND NOT EXISTS ({in_hand})
      AND coalesce(m.rank <= (
          SELECT r.rank FROM {schema}.media_cache AS r
          WHERE r.state = 'pending' AND r.rank IS NOT NULL AND NOT r.suspect AND r.target = $1::text
          ORDER BY r.rank OFFSET $2::int - 1 LIMIT 1
      ), true)
    ORDER BY m.rank LIMIT 1 FOR NO KEY UPDATE OF m SKIP LOCKED
), others AS MATERIALIZED (
    SELECT ctid AS place, rank FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect AND target = $1::text
    ORDER BY rank LIMIT $2::int - (SELECT count(*) FROM suspect) FOR NO KEY UPDATE SKIP LOCKED
), numbered AS MATERIALIZED (
    SELECT place, 2 * row_number() OVER () AS n FROM others
    UNION ALL
    SELECT place, 2 * (SELECT count(*) FROM others WHERE others.rank < suspect.rank) + 1 FROM suspect
)
{leasing};

-- name: lease_many
-- $1 targets, NULL for any, $2 most, $3 lease seconds, $4 to $7 as for `lease_one`. The best of each target,
-- and of these the best: looked for without a lock, then as many of each target locked as it has among them.
-- Any target: a walk through the indexes from one to the next, not over the rows.
WITH RECURSIVE found AS (
    (SELECT target FROM {schema}.media_cache
     WHERE $1::text[] IS NULL AND state = 'pending' AND rank IS NOT NULL AND NOT suspect ORDER BY target, rank LIMIT 1)
    UNION ALL
    SELECT following.target FROM found CROSS JOIN LATERAL (
        SELECT m.target FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target > found.target
        ORDER BY m.target, m.rank LIMIT 1
    ) AS following
), doubtful AS (
    (SELECT target FROM {schema}.media_cache
     WHERE $1::text[] IS NULL AND state = 'pending' AND rank IS NOT NULL AND suspect ORDER BY target, rank LIMIT 1)
    UNION ALL
    SELECT following.target FROM doubtful CROSS JOIN LATERAL (
        SELECT m.target FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target > doubtful.target
        ORDER BY m.target, m.rank LIMIT 1
    ) AS following
), shares AS MATERIALIZED (
    SELECT target, suspect, count(*) AS most FROM (
        (SELECT t.target, false AS suspect, best.rank
         FROM (SELECT target FROM unnest($1::text[]) AS o (target) UNION ALL SELECT target FROM found) AS t CROSS JOIN LATERAL (
             SELECT m.rank FROM {schema}.media_cache AS m
             WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target = t.target
             ORDER BY m.rank LIMIT $2::int
         ) AS best)
        UNION ALL
        (SELECT t.target, true, best.rank
         FROM (SELECT target FROM unnest($1::text[]) AS o (target) UNION ALL SELECT target FROM doubtful) AS t CROSS JOIN LATERAL (
             SELECT m.rank FROM {schema}.media_cache AS m
             WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target = t.target
             ORDER BY m.rank LIMIT 1
         ) AS best
         WHERE NOT EXISTS ({in_hand})
         ORDER BY best.rank LIMIT 1)
        ORDER BY rank LIMIT $2::int
    ) AS first
    GROUP BY target, suspect
), wanted AS MATERIALIZED (
    SELECT best.place, best.rank, 0 AS odd FROM shares CROSS JOIN LATERAL (
        SELECT m.ctid AS place, m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target = shares.target
        ORDER BY m.rank LIMIT shares.most FOR NO KEY UPDATE SKIP LOCKED
    ) AS best WHERE NOT shares.suspect
    UNION ALL
    SELECT best.place, best.rank, 1 FROM shares CROSS JOIN LATERAL (
        SELECT m.ctid AS place, m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target = shares.target
        ORDER BY m.rank LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) AS best WHERE shares.suspect
), numbered AS MATERIALIZED (
    SELECT place, 2 * row_number() OVER (ORDER BY rank) + odd AS n FROM wanted
)
{leasing};

-- name: in_hand
-- The suspect that was handed out last is still being warmed under that lease.
SELECT FROM {schema}.media_cache AS held
        WHERE held.target = $4::text AND held.media_key = $5::text AND held.kind = $6::text
          AND held.state = 'warming' AND held.token = $7::bigint

-- name: leasing
-- The end of each lease.
UPDATE {schema}.media_cache AS m
SET state = 'warming', rank = statement_timestamp() + $3::float8 * interval '1 second',
    token = nextval({tokens}), attempts = least(m.attempts + 1, 32767), leased_at = statement_timestamp(),
    lease_until = statement_timestamp() + $3::float8 * interval '1 second'
FROM numbered WHERE m.ctid = numbered.place
RETURNING numbered.n, m.target, m.media_key, m.kind, m.token, m.attempts, m.priority,
          extract(epoch FROM statement_timestamp() - m.due_at)::float8,
          m.size, m.etag, m.sha256, m.content_type, m.filename;

-- name: soon
-- Seconds until the next delayed row is due or lease runs out; early by what heartbeats have added since.
SELECT extract(epoch FROM least(
    (SELECT due_at FROM {schema}.media_cache
     WHERE state = 'pending' AND rank IS NULL ORDER BY due_at LIMIT 1),
    (SELECT rank FROM {schema}.media_cache WHERE state = 'warming' ORDER BY rank LIMIT 1)
) - statement_timestamp())::float8;

-- name: waiting
-- Rows that wait, by target, and in each the seconds that counting took. By three indexes, yet
-- milliseconds for a hundred thousand.
SELECT target, sum(rows)::bigint, extract(epoch FROM clock_timestamp() - statement_timestamp())::float8
FROM (
    SELECT target, count(*) AS rows FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect GROUP BY target
    UNION ALL
    SELECT target, count(*) FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NOT NULL AND suspect GROUP BY target
    UNION ALL
    SELECT target, count(*) FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NULL GROUP BY target
) AS part
GROUP BY target;

-- name: heartbeat_free
-- As `heartbeat`, and passes over rows that somebody's open transaction has locked: they are ours still.
WITH held AS MATERIALIZED (
    SELECT o.n, m.ctid AS place
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
         WITH ORDINALITY AS o (target, media_key, kind, token, n)
    JOIN {schema}.media_cache AS m ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
    WHERE m.state = 'warming' AND m.token = o.token
), free AS MATERIALIZED (
    SELECT m.ctid AS place FROM held JOIN {schema}.media_cache AS m ON m.ctid = held.place
    FOR NO KEY UPDATE OF m SKIP LOCKED
), beat AS (
    UPDATE {schema}.media_cache AS m
    SET lease_until = statement_timestamp() + $5::float8 * interval '1 second',
        rank = least(m.rank, statement_timestamp() + $5::float8 * interval '1 second')
    FROM free WHERE m.ctid = free.place
)
SELECT n FROM held;

-- name: heartbeat
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 lease seconds. Changes one column, which no index has; `rank`
-- only where the lease is held for less than it was given for.
UPDATE {schema}.media_cache AS m
SET lease_until = statement_timestamp() + $5::float8 * interval '1 second',
    rank = least(m.rank, statement_timestamp() + $5::float8 * interval '1 second')
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
     WITH ORDINALITY AS o (target, media_key, kind, token, n)
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
  AND m.state = 'warming' AND m.token = o.token
RETURNING o.n;
