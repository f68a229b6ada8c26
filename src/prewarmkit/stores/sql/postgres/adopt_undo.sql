-- Undoes an adoption: removes the rows that it made, if nobody has changed them since.
--
-- Run it whole: psql -v ON_ERROR_STOP=1 DSN -f this-file. It is one transaction. The old tables have
-- not been touched by the adoption, and are not by this. Rows that prewarmkit has warmed, or is
-- warming, since then stay, and so do those that it had before; the end counts them. Where nothing
-- of prewarmkit's is wanted any more, DROP SCHEMA says it shorter.
BEGIN;

LOCK TABLE {schema}.adopted_media IN SHARE ROW EXCLUSIVE MODE;

CREATE TEMPORARY TABLE adoption_undone ON COMMIT DROP AS
WITH gone AS (
    DELETE FROM {schema}.media_cache AS m USING {schema}.adopted_media AS a
    WHERE m.target = a.target AND m.media_key = a.media_key AND m.kind = a.kind
      AND NOT a.was_there AND m.token IS NULL AND m.updated_at = a.adopted_at
      AND m.handle IS NOT DISTINCT FROM a.handle
    RETURNING m.target, m.media_key, m.kind
)
SELECT a.target, CASE WHEN gone.target IS NOT NULL THEN 'removed' ELSE 'stays: not as it was adopted' END AS what
FROM {schema}.adopted_media AS a LEFT JOIN gone USING (target, media_key, kind);

SELECT what, count(*) AS rows FROM adoption_undone GROUP BY what ORDER BY what;

DROP TABLE {schema}.adopted_media, {schema}.adoption_leftovers;

COMMIT;
