-- `rank` of a row that is warming is that time. Without it a sweep walked over all leases there are.
UPDATE {schema}.media_cache SET rank = lease_until WHERE state = 'warming';
