-- Rate budgets: the calls under each name, as far back as the longest window that was asked for.
CREATE TABLE {schema}.prewarm_budget (
    budget     text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    calls      timestamptz[] NOT NULL DEFAULT '{{}}',
    longest    double precision NOT NULL DEFAULT 0,
    held_until timestamptz,
    CONSTRAINT prewarm_budget_pkey PRIMARY KEY (budget, name)
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_scale_factor = 0);
