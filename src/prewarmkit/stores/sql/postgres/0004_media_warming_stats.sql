-- One row a target and kind, for dashboards and for people.
CREATE VIEW {schema}.media_warming_stats AS
SELECT target,
       kind,
       count(*) FILTER (WHERE state = 'pending') AS pending,
       count(*) FILTER (WHERE state = 'pending' AND rank IS NULL) AS delayed,
       count(*) FILTER (WHERE state = 'warming') AS warming,
       count(*) FILTER (WHERE state = 'ready') AS ready,
       count(*) FILTER (WHERE state = 'failed') AS failed,
       count(*) FILTER (WHERE stale) AS stale,
       max(statement_timestamp() - due_at) FILTER (WHERE state = 'pending' AND rank IS NOT NULL) AS oldest_wait,
       max(statement_timestamp() - leased_at) FILTER (WHERE state = 'warming') AS oldest_lease,
       max(warmed_at) AS last_warmed_at
FROM {schema}.media_cache
GROUP BY target, kind;
