-- What was spent and held is forgotten.
DROP TABLE IF EXISTS {schema}.prewarm_budget;
