-- What a pump does: settle, sweep, lease, hold. Each statement names its parameters.
-- {live} and {ageing} are the order's constants (prewarmkit.stores.lifecycle), {background} the rank
-- from which background rows begin. Whether a lease still holds is asked by CASE: rows that a call names
-- are found by the primary key then, and never by the index of all leases, however small the planner
-- takes that to be.

-- name: plan
-- Each statement below has one good plan, by index. Statistics of a table that fills and
-- empties in minutes would talk the planner into others. Holds for this transaction only.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_sort', 'off', true), set_config('jit', 'off', true),
       set_config('plan_cache_mode', 'force_generic_plan', true),
       set_config('lock_timeout', '250ms', true);

-- name: brief
-- Before an outcome that is told alone.
SELECT set_config('lock_timeout', '20ms', true);

-- name: landed
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 handles, NULL for what was no success, $6 states. Rows that
-- are where an outcome with this token would have moved them, and that nobody has claimed since. One that
-- a sweep has put back is a suspect.
SELECT o.n
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[])
     WITH ORDINALITY AS o (target, media_key, kind, token, handle, state, n)
JOIN {schema}.media_cache AS m
  ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind AND m.token = o.token
WHERE m.state = o.state AND NOT m.suspect AND (o.handle IS NULL OR m.handle = o.handle);

-- name: locked
-- $1 targets, $2 keys, $3 kinds, $4 tokens. Places of leases that hold, and whose rows somebody's open
-- transaction has locked.
WITH held AS MATERIALIZED (
    SELECT o.n, m.ctid AS place
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
         WITH ORDINALITY AS o (target, media_key, kind, token, n)
    JOIN {schema}.media_cache AS m ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
    WHERE CASE m.state WHEN 'warming' THEN m.token = o.token END
), free AS MATERIALIZED (
    SELECT m.ctid AS place FROM held JOIN {schema}.media_cache AS m ON m.ctid = held.place
    FOR NO KEY UPDATE OF m SKIP LOCKED
)
SELECT n FROM held WHERE NOT EXISTS (SELECT FROM free WHERE free.place = held.place);

-- name: succeed
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 handles, $6 delivered kinds, $7 unique ids,
-- $8 weak, $9 details, $10 expiry in POSIX seconds, $11 seconds until it is renewed. Answers the places of
-- those that applied. Waiting rows of the same content become ready with them, if they have no handle, or
-- one that is to be renewed.
WITH settled AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'ready', rank = NULL, attempts = 0, reason = NULL, stale = false, suspect = false,
        leased_at = NULL, lease_until = NULL, updated_at = statement_timestamp(), handle = o.handle,
        handle_kind = o.handle_kind, unique_id = o.unique_id, weak = o.weak::json, details = o.details::json,
        warmed_at = statement_timestamp(), expires_at = to_timestamp(o.expires),
        renew_at = statement_timestamp() + o.renew * interval '1 second'
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::float8[], $11::float8[]) WITH ORDINALITY
         AS o (target, media_key, kind, token, handle, handle_kind, unique_id, weak, details, expires, renew, n)
    WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
      AND CASE m.state WHEN 'warming' THEN m.token = o.token END
    RETURNING o.n, m.target, m.kind, m.sha256, m.handle, m.handle_kind, m.unique_id, m.weak, m.details,
              m.expires_at, m.renew_at
), shared AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'ready', rank = NULL, attempts = 0, reason = NULL, stale = false, suspect = false,
        updated_at = statement_timestamp(), handle = s.handle, handle_kind = s.handle_kind,
        unique_id = s.unique_id, weak = s.weak, details = s.details, warmed_at = statement_timestamp(),
        expires_at = s.expires_at, renew_at = s.renew_at
    FROM (
        SELECT w.ctid AS place, settled.*
        FROM settled JOIN {schema}.media_cache AS w
          ON w.target = settled.target AND w.sha256 = settled.sha256 AND w.kind = settled.kind
        WHERE w.state = 'pending' AND w.sha256 IS NOT NULL AND NOT w.stale
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
  AND CASE m.state WHEN 'warming' THEN m.token = o.token END
RETURNING o.n;

-- name: fail
-- $1 targets, $2 keys, $3 kinds, $4 tokens, $5 reasons.
UPDATE {schema}.media_cache AS m
SET state = 'failed', rank = NULL, reason = o.reason, leased_at = NULL, lease_until = NULL,
    updated_at = statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[])
     WITH ORDINALITY AS o (target, media_key, kind, token, reason, n)
WHERE m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
  AND CASE m.state WHEN 'warming' THEN m.token = o.token END
RETURNING o.n;

-- name: sweep
-- Takes back leases that ran out, and puts rows into the queue whose time has come: delayed ones, and
-- ready ones whose handle is to be renewed, at a background priority; the handle stays as it is.
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
), renewing AS MATERIALIZED (
    SELECT ctid AS place FROM {schema}.media_cache
    WHERE state = 'ready' AND renew_at <= statement_timestamp()
    ORDER BY renew_at LIMIT {renewed_at_once} FOR NO KEY UPDATE SKIP LOCKED
), renewed AS (
    UPDATE {schema}.media_cache AS m
    SET state = 'pending', priority = greatest(priority, {renewal_priority}), due_at = statement_timestamp(),
        rank = statement_timestamp() + greatest(priority, {renewal_priority}) * {ageing}, attempts = 0,
        renew_at = NULL, updated_at = statement_timestamp()
    FROM renewing WHERE m.ctid = renewing.place
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
-- $7 token, or NULLs; $8 background rows that come among the $2 however many live ones wait
-- (prewarmkit.stores.rules). Live rows have the smallest ranks, so the first rows are the right ones
-- unless background rows lack their share among them. A suspect comes only while none is held, and in its
-- turn. Answers places, live ones and others for themselves, odd for a suspect.
WITH suspect AS MATERIALIZED (
    SELECT m.ctid AS place, m.rank, m.rank < {background} AS is_live FROM {schema}.media_cache AS m
    WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target = $1::text
      AND NOT EXISTS ({in_hand})
    ORDER BY m.rank LIMIT 1 FOR NO KEY UPDATE OF m SKIP LOCKED
), first AS MATERIALIZED (
    SELECT place, rank, rank < {background} AS is_live, row_number() OVER () AS n FROM (
        SELECT ctid AS place, rank FROM {schema}.media_cache
        WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect AND target = $1::text
        ORDER BY rank LIMIT $2::int FOR NO KEY UPDATE SKIP LOCKED
    ) AS o
), share AS MATERIALIZED (
    SELECT ctid AS place, rank FROM {schema}.media_cache
    WHERE state = 'pending' AND rank IS NOT NULL AND NOT suspect AND target = $1::text AND rank >= {background}
    ORDER BY rank OFFSET (SELECT count(*) FROM first WHERE NOT is_live)
    LIMIT greatest(0, (SELECT count(*) FROM first WHERE is_live) + $8::int - $2::int) FOR NO KEY UPDATE SKIP LOCKED
), {shared}, numbered AS (
    SELECT place, 2 * n AS n FROM others WHERE 2 * n IS DISTINCT FROM (SELECT surplus FROM doubtful)
    UNION ALL
    SELECT place, n FROM doubtful WHERE n IS DISTINCT FROM surplus
)
{leasing};

-- name: lease_many
-- $1 targets, NULL for any, the rest as for `lease_one`. The best of each target, and of these the best:
-- looked for without a lock, then as many of each target locked as it has among them.
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
), found_suspect AS (
    (SELECT target FROM {schema}.media_cache
     WHERE $1::text[] IS NULL AND state = 'pending' AND rank IS NOT NULL AND suspect ORDER BY target, rank LIMIT 1)
    UNION ALL
    SELECT following.target FROM found_suspect CROSS JOIN LATERAL (
        SELECT m.target FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target > found_suspect.target
        ORDER BY m.target, m.rank LIMIT 1
    ) AS following
), targets AS MATERIALIZED (
    SELECT target FROM unnest($1::text[]) AS o (target) UNION ALL SELECT target FROM found
), suspect AS MATERIALIZED (
    SELECT t.target AS place, best.rank, best.rank < {background} AS is_live
    FROM (SELECT target FROM unnest($1::text[]) AS o (target) UNION ALL SELECT target FROM found_suspect) AS t CROSS JOIN LATERAL (
        SELECT m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target = t.target
        ORDER BY m.rank LIMIT 1
    ) AS best
    WHERE NOT EXISTS ({in_hand})
    ORDER BY best.rank LIMIT 1
), first AS MATERIALIZED (
    SELECT place, rank, rank < {background} AS is_live, row_number() OVER () AS n FROM (
        SELECT t.target AS place, best.rank FROM targets AS t CROSS JOIN LATERAL (
            SELECT m.rank FROM {schema}.media_cache AS m
            WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target = t.target
            ORDER BY m.rank LIMIT $2::int
        ) AS best
        ORDER BY best.rank LIMIT $2::int
    ) AS o
), share AS MATERIALIZED (
    SELECT t.target AS place, best.rank FROM targets AS t CROSS JOIN LATERAL (
        SELECT m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target = t.target AND m.rank >= {background}
        ORDER BY m.rank LIMIT $8::int
    ) AS best
    ORDER BY best.rank OFFSET (SELECT count(*) FROM first WHERE NOT is_live)
    LIMIT greatest(0, (SELECT count(*) FROM first WHERE is_live) + $8::int - $2::int)
), {shared}, shares AS MATERIALIZED (
    SELECT place AS target, is_live, is_suspect, count(*) AS most FROM (
        SELECT place, is_live, false AS is_suspect FROM others WHERE 2 * n IS DISTINCT FROM (SELECT surplus FROM doubtful)
        UNION ALL
        SELECT place, is_live, true FROM doubtful WHERE n IS DISTINCT FROM surplus
    ) AS chosen
    GROUP BY place, is_live, is_suspect
), wanted AS MATERIALIZED (
    SELECT best.place, best.rank, 0 AS odd FROM shares CROSS JOIN LATERAL (
        SELECT m.ctid AS place, m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target = shares.target AND m.rank < {background}
        ORDER BY m.rank LIMIT shares.most FOR NO KEY UPDATE SKIP LOCKED
    ) AS best WHERE shares.is_live AND NOT shares.is_suspect
    UNION ALL
    SELECT best.place, best.rank, 0 FROM shares CROSS JOIN LATERAL (
        SELECT m.ctid AS place, m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND NOT m.suspect AND m.target = shares.target AND m.rank >= {background}
        ORDER BY m.rank LIMIT shares.most FOR NO KEY UPDATE SKIP LOCKED
    ) AS best WHERE NOT shares.is_live AND NOT shares.is_suspect
    UNION ALL
    SELECT best.place, best.rank, 1 FROM shares CROSS JOIN LATERAL (
        SELECT m.ctid AS place, m.rank FROM {schema}.media_cache AS m
        WHERE m.state = 'pending' AND m.rank IS NOT NULL AND m.suspect AND m.target = shares.target
        ORDER BY m.rank LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) AS best WHERE shares.is_suspect
), numbered AS MATERIALIZED (
    SELECT place, 2 * row_number() OVER (ORDER BY rank) + odd AS n FROM wanted
)
{leasing};

-- name: in_hand
-- The suspect that was handed out last is still being warmed under that lease.
SELECT FROM {schema}.media_cache AS held
        WHERE held.target = $4::text AND held.media_key = $5::text AND held.kind = $6::text
          AND CASE held.state WHEN 'warming' THEN held.token = $7::bigint END

-- name: shared
-- In each lease, between looking and taking. `others`: the `first`, the last live ones given up for the
-- `share` of background rows. `doubtful`: the suspect's place among them, and, if it makes one too many,
-- the place of the surplus one (which may be its own): the last background row, but the last live one
-- where background rows have no more than their share.
others AS MATERIALIZED (
    SELECT place, rank, is_live, n FROM first
    WHERE NOT is_live OR n <= (SELECT count(*) FROM first WHERE is_live) - (SELECT count(*) FROM share)
    UNION ALL
    SELECT place, rank, false, $2::int + row_number() OVER () FROM share
), doubtful AS MATERIALIZED (
    SELECT o.place, o.is_live, o.n, CASE
        WHEN o.all_others < $2::int THEN NULL
        WHEN o.background + CASE WHEN o.is_live THEN 0 ELSE 1 END <= $8::int
          THEN greatest(2 * o.last_live, CASE WHEN o.is_live THEN o.n END)
        ELSE greatest(2 * o.last_background, CASE WHEN NOT o.is_live THEN o.n END) END AS surplus
    FROM (
        SELECT s.place, s.is_live, 2 * coalesce(before, 0) + 1 AS n, all_others, background, last_live, last_background
        FROM suspect AS s CROSS JOIN LATERAL (
            SELECT count(*) AS all_others, count(*) FILTER (WHERE NOT o.is_live) AS background,
                   max(o.n) FILTER (WHERE o.is_live) AS last_live, max(o.n) FILTER (WHERE NOT o.is_live) AS last_background,
                   max(o.n) FILTER (WHERE o.is_live = s.is_live AND o.rank <= s.rank) AS before
            FROM others AS o
        ) AS counted
    ) AS o
)

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
-- Seconds until the next row is due or to be renewed, or lease runs out; early by what heartbeats have added since.
SELECT extract(epoch FROM least(
    (SELECT due_at FROM {schema}.media_cache
     WHERE state = 'pending' AND rank IS NULL ORDER BY due_at LIMIT 1),
    (SELECT rank FROM {schema}.media_cache WHERE state = 'warming' ORDER BY rank LIMIT 1),
    (SELECT renew_at FROM {schema}.media_cache
     WHERE state = 'ready' AND renew_at IS NOT NULL ORDER BY renew_at LIMIT 1)
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

-- name: figures
-- Both of these at once: the seconds of `soon` without a target, then the rows of `waiting`.
SELECT NULL::text, NULL::bigint, ({soon})
UNION ALL ({waiting});

-- name: heartbeat_free
-- As `heartbeat`, and passes over rows that somebody's open transaction has locked: they are ours still.
WITH held AS MATERIALIZED (
    SELECT o.n, m.ctid AS place
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])
         WITH ORDINALITY AS o (target, media_key, kind, token, n)
    JOIN {schema}.media_cache AS m ON m.target = o.target AND m.media_key = o.media_key AND m.kind = o.kind
    WHERE CASE m.state WHEN 'warming' THEN m.token = o.token END
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
  AND CASE m.state WHEN 'warming' THEN m.token = o.token END
RETURNING o.n;
