DROP INDEX {concurrently} IF EXISTS {schema}.ix_media_cache_renewal;
