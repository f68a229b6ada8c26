-- What is renewed next. A medium whose handle does not expire never stands in it.
CREATE INDEX {concurrently} IF NOT EXISTS ix_media_cache_renewal ON {schema}.media_cache (renew_at)
    WHERE state = 'ready' AND renew_at IS NOT NULL;
