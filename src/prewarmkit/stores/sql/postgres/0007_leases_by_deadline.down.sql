-- Before it a row that was warming had no rank.
UPDATE {schema}.media_cache SET rank = NULL WHERE state = 'warming';
