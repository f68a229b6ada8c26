-- When to look at a lease next, by the time at which it would have run out when somebody last
-- looked (or when it was given). A heartbeat leaves that time, and thereby this index, alone.
CREATE INDEX {concurrently} IF NOT EXISTS ix_media_cache_leases ON {schema}.media_cache (rank)
    WHERE state = 'warming';
