-- Facts of targets are lost, such as where a chat has moved; they are learned again.
DROP TABLE IF EXISTS {schema}.prewarm_state;
