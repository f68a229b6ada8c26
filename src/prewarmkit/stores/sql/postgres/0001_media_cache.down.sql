-- All of it, the handles too: what a target has, it has to be told again.
DROP TABLE IF EXISTS {schema}.media_cache;
DROP SEQUENCE IF EXISTS {schema}.media_cache_token;
