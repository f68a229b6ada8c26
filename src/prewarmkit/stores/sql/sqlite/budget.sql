-- Rate budgets. Times are those of the store's clock.

-- name: budget_read
SELECT calls, longest, held_until FROM prewarm_budget WHERE budget = :budget AND name = :name;

-- name: budget_write
INSERT INTO prewarm_budget (budget, name, calls, longest, held_until, written_at, over_at)
VALUES (:budget, :name, :calls, :longest, :held_until, :now, :over_at)
ON CONFLICT (budget, name) DO UPDATE SET
    calls = excluded.calls, longest = excluded.longest, held_until = excluded.held_until,
    written_at = excluded.written_at, over_at = excluded.over_at;

-- name: budget_sweep
-- Some of the names under which nothing counts any more, the longest idle first.
DELETE FROM prewarm_budget WHERE (budget, name) IN (
    SELECT budget, name FROM prewarm_budget INDEXED BY ix_prewarm_budget_over
    WHERE over_at < :now ORDER BY over_at LIMIT :most
);
