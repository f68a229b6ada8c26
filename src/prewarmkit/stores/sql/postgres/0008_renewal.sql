-- When a ready row is due again by itself, so that its handle is renewed before it expires. NULL in any other state.
ALTER TABLE {schema}.media_cache ADD COLUMN IF NOT EXISTS renew_at timestamptz;
