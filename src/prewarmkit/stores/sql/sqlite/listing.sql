-- A page of rows by their number, in one of two ways: see prewarmkit.stores.sqlite_listing.

-- name: totals
SELECT coalesce(sum(pending), 0) AS pending, coalesce(sum(warming), 0) AS warming,
       coalesce(sum(ready), 0) AS ready, coalesce(sum(failed), 0) AS failed
FROM prewarm_counts;

-- name: list
-- Walks over the rows of other states.
SELECT * FROM media_cache
WHERE id > :after AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:targets IS NULL OR target IN (SELECT value FROM json_each(:targets)))
ORDER BY id LIMIT :most;

-- name: list_few
-- Takes each state's rows from its own index and sorts them; those that failed stand in order.
SELECT * FROM media_cache WHERE id IN (
    SELECT id FROM (
        SELECT id, target FROM media_cache INDEXED BY ix_media_cache_due
        WHERE :pending AND state = 'pending' AND id > :after
        UNION ALL
        SELECT id, target FROM media_cache INDEXED BY ix_media_cache_warming
        WHERE :warming AND state = 'warming' AND id > :after
        UNION ALL
        SELECT id, target FROM media_cache INDEXED BY ix_media_cache_ended
        WHERE :ready AND state IN ('ready', 'failed') AND state = 'ready' AND id > :after
        UNION ALL
        SELECT id, target FROM media_cache INDEXED BY ix_media_cache_failed
        WHERE :failed AND state = 'failed' AND id > :after
    )
    WHERE :targets IS NULL OR target IN (SELECT value FROM json_each(:targets))
    ORDER BY id LIMIT :most
)
ORDER BY id;
