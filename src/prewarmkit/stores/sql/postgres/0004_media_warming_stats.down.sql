DROP VIEW IF EXISTS {schema}.media_warming_stats;
