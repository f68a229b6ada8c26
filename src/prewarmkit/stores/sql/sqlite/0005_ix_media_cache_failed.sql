-- Who failed, and at which target, a page at a time. A warm medium never stands in it.
CREATE INDEX ix_media_cache_failed ON media_cache (id, target) WHERE state = 'failed';
