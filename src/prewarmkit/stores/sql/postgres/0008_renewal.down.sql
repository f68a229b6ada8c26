ALTER TABLE {schema}.media_cache DROP COLUMN IF EXISTS renew_at;
