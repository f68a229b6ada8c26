-- Takes the rows of the original system's media_store and media_cache (in schema public) over into
-- prewarmkit's table in schema {schema}, which `python -m prewarmkit migrate DSN --schema …` has made.
--
-- 1. Put each bot_slug and the id of its target into the map below. A TelegramTarget's id is the
--    number before the colon of the bot's token.
-- 2. Run it whole: psql -v ON_ERROR_STOP=1 DSN -f this-file. It is one transaction: it takes over
--    every row, or says which it cannot and changes nothing. Running it again adds what is new.
-- 3. The old tables are read only and stay as they are. To go back, start the old worker again and
--    DROP SCHEMA {schema} CASCADE.
BEGIN;

CREATE TEMPORARY TABLE adopted_bots (bot_slug text PRIMARY KEY, target text NOT NULL) ON COMMIT DROP;
INSERT INTO adopted_bots (bot_slug, target) VALUES
    ('my-bot', '123456');

CREATE TEMPORARY TABLE adopted_rows ON COMMIT DROP AS
SELECT b.target, s.r2_key AS media_key, c.kind, c.sha256, c.status, c.file_id, c.file_unique_id,
       c.warmup_chat_id, c.warmup_message_id, c.last_error, c.bot_slug
FROM public.media_cache AS c
LEFT JOIN adopted_bots AS b ON b.bot_slug = c.bot_slug
LEFT JOIN public.media_store AS s ON s.bot_slug = c.bot_slug AND s.sha256 = c.sha256;

DO $$
DECLARE
    missing text;
BEGIN
    SELECT string_agg(DISTINCT bot_slug, ', ') INTO missing FROM adopted_rows WHERE target IS NULL;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the map has no target for: %', missing;
    END IF;
    SELECT string_agg(bot_slug || '/' || sha256, ', ') INTO missing
    FROM (SELECT bot_slug, sha256 FROM adopted_rows WHERE media_key IS NULL LIMIT 20) AS found;
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'media_store has no key for: %', missing;
    END IF;
    SELECT string_agg(DISTINCT kind, ', ') INTO missing FROM adopted_rows
    WHERE kind NOT IN ('photo', 'video', 'animation', 'audio', 'voice', 'video_note', 'sticker', 'document');
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'these are no kinds: %', missing;
    END IF;
END
$$;

INSERT INTO {schema}.media_cache
    (target, media_key, kind, sha256, priority, due_at, updated_at, rank, state, reason, handle, unique_id, details,
     warmed_at)
SELECT target, media_key, kind, sha256, 5, statement_timestamp(), statement_timestamp(),
       CASE WHEN now_is = 'pending' THEN statement_timestamp() + 5 * {ageing} END,
       now_is, last_error, file_id, file_unique_id,
       CASE WHEN warmup_chat_id IS NOT NULL OR warmup_message_id IS NOT NULL THEN
           json_build_object('chat_id', warmup_chat_id, 'message_id', warmup_message_id) END,
       CASE WHEN file_id IS NOT NULL THEN statement_timestamp() END
FROM (
    -- A row that was being warmed, and one that waited in memory, is to be warmed; an error is final
    -- until somebody asks for it again (`pool.requeue_failed()`).
    SELECT *, CASE WHEN status = 'ready' AND file_id IS NOT NULL THEN 'ready'
                   WHEN status IN ('error', 'failed') THEN 'failed'
                   ELSE 'pending' END AS now_is
    FROM adopted_rows
) AS r
ON CONFLICT (target, media_key, kind) DO NOTHING;

DO $$
DECLARE
    lost bigint;
BEGIN
    SELECT count(*) INTO lost FROM adopted_rows AS r WHERE NOT EXISTS (
        SELECT FROM {schema}.media_cache AS m
        WHERE m.target = r.target AND m.media_key = r.media_key AND m.kind = r.kind
    );
    IF lost > 0 THEN
        RAISE EXCEPTION '% rows were not taken over', lost;
    END IF;
END
$$;

COMMIT;
