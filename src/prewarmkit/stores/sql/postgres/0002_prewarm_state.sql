-- Small durable facts of targets.
CREATE TABLE {schema}.prewarm_state (
    name  text COLLATE "C" NOT NULL,
    key   text COLLATE "C" NOT NULL,
    value text NOT NULL,
    CONSTRAINT prewarm_state_pkey PRIMARY KEY (name, key)
);
