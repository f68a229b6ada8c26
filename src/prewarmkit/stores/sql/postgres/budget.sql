-- Rate budgets. Times go out and in as seconds of this server's clock.

-- name: budget_begin
-- $1 budget, $2 names. Rows to lock.
INSERT INTO {schema}.prewarm_budget (budget, name)
SELECT $1::text, name FROM unnest($2::text[]) AS o (name)
WHERE NOT EXISTS (SELECT FROM {schema}.prewarm_budget AS b WHERE b.budget = $1::text AND b.name = o.name)
ORDER BY name
ON CONFLICT DO NOTHING;

-- name: budget_lock
-- $1 budget, $2 names. Calls, oldest first, and until when nothing may be given.
SELECT name, ARRAY(SELECT extract(epoch FROM c)::float8 FROM unnest(calls) AS c),
       extract(epoch FROM held_until)::float8
FROM {schema}.prewarm_budget WHERE budget = $1::text AND name = ANY ($2::text[])
ORDER BY name FOR UPDATE;

-- name: budget_now
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: budget_set_back
-- $1 budget, $2 names, $3 now. Calls that lie in the future are made now.
UPDATE {schema}.prewarm_budget AS b
SET calls = ARRAY(SELECT least(c, to_timestamp($3::float8)) FROM unnest(b.calls) AS c)
WHERE b.budget = $1::text AND b.name = ANY ($2::text[]);

-- name: budget_spend
-- $1 budget, $2 names, $3 their longest windows, $4 when, $5 how many calls. Forgets what no window reaches.
UPDATE {schema}.prewarm_budget AS b
SET longest = greatest(b.longest, o.longest),
    calls = ARRAY(
        SELECT c FROM unnest(b.calls) AS c
        WHERE c >= to_timestamp($4::float8) - (greatest(b.longest, o.longest) + 1) * interval '1 second'
    ) || array_fill(to_timestamp($4::float8), ARRAY[$5::int])
FROM unnest($2::text[], $3::float8[]) AS o (name, longest)
WHERE b.budget = $1::text AND b.name = o.name;

-- name: budget_put
-- $1 budget, $2 name, $3 calls, oldest first.
UPDATE {schema}.prewarm_budget SET calls = ARRAY(SELECT to_timestamp(c) FROM unnest($3::float8[]) AS c)
WHERE budget = $1::text AND name = $2::text;

-- name: budget_hold
-- $1 budget, $2 name, $3 seconds. Never shortens a hold.
INSERT INTO {schema}.prewarm_budget AS b (budget, name, held_until)
VALUES ($1::text, $2::text, clock_timestamp() + $3::float8 * interval '1 second')
ON CONFLICT (budget, name) DO UPDATE SET held_until = greatest(b.held_until, excluded.held_until);

-- name: budget_sweep
-- Names under which nothing counts any more; not those that somebody is just asking for.
DELETE FROM {schema}.prewarm_budget AS b USING (
    SELECT ctid AS place FROM {schema}.prewarm_budget
    WHERE coalesce(held_until < clock_timestamp(), true)
      AND coalesce(calls[cardinality(calls)] < clock_timestamp() - (longest + 1) * interval '1 second', true)
    FOR UPDATE SKIP LOCKED
) AS over
WHERE b.ctid = over.place;
