-- Rate budgets: the calls under each name, as far back as the longest window that was asked for.
-- `calls` is a JSON list, oldest first; `over_at` is when nothing of the row counts any more.
CREATE TABLE prewarm_budget (
    budget     TEXT NOT NULL,
    name       TEXT NOT NULL,
    calls      TEXT NOT NULL,
    longest    REAL NOT NULL,
    held_until REAL,
    written_at REAL NOT NULL,
    over_at    REAL NOT NULL,
    PRIMARY KEY (budget, name)
) WITHOUT ROWID;

CREATE INDEX ix_prewarm_budget_over ON prewarm_budget (over_at);
