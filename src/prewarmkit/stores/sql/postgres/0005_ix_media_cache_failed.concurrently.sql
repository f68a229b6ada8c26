-- Who failed, for those who list and requeue it. A warm medium never stands in it.
CREATE INDEX {concurrently} IF NOT EXISTS ix_media_cache_failed ON {schema}.media_cache (target, media_key, kind)
    WHERE state = 'failed';
