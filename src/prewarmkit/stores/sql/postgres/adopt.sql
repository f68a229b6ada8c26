-- Takes the rows of the original system's media_store and media_cache over into prewarmkit's own
-- table, which `python -m prewarmkit migrate DSN --schema …` has made in another schema.
--
-- 1. Have the map below name each bot_slug and the id of its target (`sql --adopt --bot SLUG=ID`
--    does). A TelegramTarget's id is the number before the colon of the bot's token.
-- 2. Run it whole: psql -v ON_ERROR_STOP=1 DSN -f this-file. It is one transaction. The old tables
--    are only read; writers to them wait for its end.
-- 3. Every old row is counted at the end, as taken over or with the reason why not. Those that were
--    not taken over stand in adoption_leftovers, all their columns with them.
--
-- Running it again takes over what is new or was left over for a reason that is gone. It never
-- gives a row a handle that it gave it before: that one has been used, and perhaps refused, since.
-- To go back: `python -m prewarmkit sql --adopt --undo` (docs/adopt.md).
BEGIN;

CREATE TEMPORARY TABLE adoption_map (bot_slug text PRIMARY KEY, target text NOT NULL CHECK (target <> ''))
    ON COMMIT DROP;
INSERT INTO adoption_map (bot_slug, target) VALUES
    {bots};

-- What was taken over from where, for the next run and for the way back.
CREATE TABLE IF NOT EXISTS {schema}.adopted_media (
    target     text COLLATE "C" NOT NULL,
    media_key  text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    bot_slug   text NOT NULL,
    sha256     text NOT NULL,
    handle     text,
    was_there  boolean NOT NULL,
    adopted_at timestamptz NOT NULL,
    CONSTRAINT adopted_media_pkey PRIMARY KEY (target, media_key, kind)
);
CREATE TABLE IF NOT EXISTS {schema}.adoption_leftovers (reason text NOT NULL, original jsonb NOT NULL);
LOCK TABLE {schema}.adopted_media, {schema}.adoption_leftovers IN SHARE ROW EXCLUSIVE MODE;
LOCK TABLE {original}.media_store, {original}.media_cache IN SHARE MODE;

CREATE TEMPORARY TABLE adoption_rows ON COMMIT DROP AS
SELECT row_number() OVER () AS n, to_jsonb(c) AS original, c.bot_slug::text AS bot_slug, m.target,
       nullif(lower(btrim(c.sha256::text)), '') AS sha256, lower(btrim(c.kind::text)) AS kind,
       nullif(btrim(c.file_id::text), '') AS handle, lower(btrim(c.status::text)) AS status
FROM {original}.media_cache AS c LEFT JOIN adoption_map AS m ON m.bot_slug = c.bot_slug::text;

CREATE TEMPORARY TABLE adoption_keys ON COMMIT DROP AS
SELECT DISTINCT s.bot_slug::text AS bot_slug, lower(btrim(s.sha256::text)) AS sha256, s.r2_key::text AS media_key
FROM {original}.media_store AS s WHERE s.r2_key::text <> '' AND btrim(s.sha256::text) <> '';
CREATE INDEX ON adoption_keys (bot_slug, sha256);

-- A key under which there have been several contents: which of them it has now, the tables do not say.
CREATE TEMPORARY TABLE adoption_doubts ON COMMIT DROP AS
SELECT m.target, k.media_key FROM adoption_keys AS k JOIN adoption_map AS m ON m.bot_slug = k.bot_slug
GROUP BY m.target, k.media_key HAVING count(DISTINCT k.sha256) > 1;

-- Where each old row goes: one place for each key of its content. Of several rows for one place
-- the best goes there: one that is ready, else one with a handle, else one that waits.
CREATE TEMPORARY TABLE adoption_places ON COMMIT DROP AS
SELECT p.*, row_number() OVER (
           PARTITION BY p.target, p.media_key, p.kind
           ORDER BY p.state = 'ready' DESC, p.handle IS NOT NULL DESC, p.state = 'pending' DESC, p.n
       ) = 1 AS is_best
FROM (
    SELECT r.n, r.target, k.media_key, r.kind, r.bot_slug, r.sha256, r.handle, r.original,
           CASE WHEN r.status = 'ready' AND r.handle IS NOT NULL THEN 'ready'
                WHEN r.status IN ('error', 'failed') THEN 'failed'
                ELSE 'pending' END AS state
    FROM adoption_rows AS r JOIN adoption_keys AS k ON k.bot_slug = r.bot_slug AND k.sha256 = r.sha256
    WHERE r.target IS NOT NULL
      AND r.kind IN ({kinds})
      AND octet_length(r.target) + octet_length(k.media_key) <= {longest}
      AND NOT EXISTS (SELECT FROM adoption_doubts AS d WHERE d.target = r.target AND d.media_key = k.media_key)
) AS p;
CREATE INDEX ON adoption_places (n);
CREATE INDEX ON adoption_doubts (target, media_key);
ANALYZE adoption_rows;
ANALYZE adoption_keys;
ANALYZE adoption_doubts;
ANALYZE adoption_places;

-- A handle of a row that is not ready stays readable, as stale. A row of prewarmkit's own keeps
-- its place, but one that only waits for a handle gets it.
WITH fresh AS (
    SELECT p.*, EXISTS (SELECT FROM {schema}.media_cache AS m
                        WHERE m.target = p.target AND m.media_key = p.media_key AND m.kind = p.kind) AS was_there
    FROM adoption_places AS p
    LEFT JOIN {schema}.adopted_media AS a ON a.target = p.target AND a.media_key = p.media_key AND a.kind = p.kind
    WHERE p.is_best AND (a.target IS NULL OR p.state = 'ready' AND p.handle IS DISTINCT FROM a.handle)
), put AS (
    INSERT INTO {schema}.media_cache AS m
        (target, media_key, kind, sha256, priority, due_at, updated_at, rank, state, reason, handle, unique_id, weak,
         details, stale, warmed_at)
    SELECT target, media_key, kind, sha256, 5, statement_timestamp(), statement_timestamp(),
           CASE WHEN state = 'pending' THEN statement_timestamp() + 5 * {ageing} END, state,
           CASE WHEN state = 'failed' THEN coalesce(nullif(original ->> 'last_error', ''), 'an error before it was adopted') END,
           handle, nullif(original ->> 'file_unique_id', ''),
           CASE WHEN handle IS NOT NULL AND coalesce(original ->> 'file_unique_id', '') = '' THEN '["no_unique_id"]'::json END,
           CASE WHEN coalesce(original ->> 'warmup_chat_id', original ->> 'warmup_message_id') IS NOT NULL THEN
               json_build_object('chat_id', original -> 'warmup_chat_id', 'message_id', original -> 'warmup_message_id') END,
           handle IS NOT NULL AND state <> 'ready', CASE WHEN handle IS NOT NULL THEN statement_timestamp() END
    FROM fresh
    ON CONFLICT (target, media_key, kind) DO UPDATE
    SET state = 'ready', rank = NULL, attempts = 0, reason = NULL, stale = false, suspect = false,
        updated_at = excluded.updated_at,
        sha256 = excluded.sha256, handle = excluded.handle, handle_kind = NULL, unique_id = excluded.unique_id,
        weak = excluded.weak, details = excluded.details, warmed_at = excluded.warmed_at, expires_at = NULL
    WHERE m.state = 'pending' AND m.handle IS NULL AND excluded.state = 'ready'
      AND coalesce(m.sha256, excluded.sha256) = excluded.sha256
    RETURNING m.target, m.media_key, m.kind
)
INSERT INTO {schema}.adopted_media AS a
    (target, media_key, kind, bot_slug, sha256, handle, was_there, adopted_at)
SELECT f.target, f.media_key, f.kind, f.bot_slug, f.sha256, f.handle, f.was_there, statement_timestamp()
FROM fresh AS f JOIN put ON put.target = f.target AND put.media_key = f.media_key AND put.kind = f.kind
ON CONFLICT (target, media_key, kind) DO UPDATE
SET bot_slug = excluded.bot_slug, sha256 = excluded.sha256, handle = excluded.handle, adopted_at = excluded.adopted_at;

CREATE TEMPORARY TABLE adoption_ends ON COMMIT DROP AS
SELECT r.n, r.original, CASE
    WHEN EXISTS (
        SELECT FROM adoption_places AS p JOIN {schema}.adopted_media AS a
          ON a.target = p.target AND a.media_key = p.media_key AND a.kind = p.kind
         AND a.bot_slug = p.bot_slug AND a.sha256 = p.sha256
        WHERE p.n = r.n AND p.is_best
    ) THEN 'taken over'
    WHEN r.target IS NULL THEN 'its bot_slug is not in the map'
    WHEN r.sha256 IS NULL THEN 'it has no sha256'
    WHEN r.kind IS NULL OR r.kind NOT IN ({kinds}) THEN 'its kind is unknown'
    WHEN NOT EXISTS (SELECT FROM adoption_keys AS k WHERE k.bot_slug = r.bot_slug AND k.sha256 = r.sha256)
      THEN 'media_store has no key for it'
    WHEN EXISTS (SELECT FROM adoption_places AS p WHERE p.n = r.n AND p.is_best)
      THEN 'prewarmkit has a row of its own'
    WHEN EXISTS (SELECT FROM adoption_places AS p WHERE p.n = r.n) THEN 'another row of the same medium is better'
    WHEN EXISTS (
        SELECT FROM adoption_keys AS k JOIN adoption_doubts AS d ON d.target = r.target AND d.media_key = k.media_key
        WHERE k.bot_slug = r.bot_slug AND k.sha256 = r.sha256
    ) THEN 'its key has had several contents'
    ELSE 'its key is too long' END AS what
FROM adoption_rows AS r;

TRUNCATE {schema}.adoption_leftovers;
INSERT INTO {schema}.adoption_leftovers (reason, original)
SELECT what, original FROM adoption_ends WHERE what <> 'taken over';

SELECT what, count(*) AS rows FROM adoption_ends GROUP BY what ORDER BY what <> 'taken over', rows DESC, what;

COMMIT;
