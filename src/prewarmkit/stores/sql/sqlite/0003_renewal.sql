-- When a ready row is due again by itself, so that its handle is renewed before it expires.
ALTER TABLE media_cache ADD COLUMN renew_at REAL;
CREATE INDEX ix_media_cache_renewal ON media_cache (renew_at) WHERE state = 'ready' AND renew_at IS NOT NULL;
