-- The inbox by days, so that forgetting is dropping a table. Event ids of version 7 begin with their time, so a range of
-- ids is a range of time, and the key stays unique over all days. Other ids, and ids of days without a partition, are in
-- the rest. `prune_inbox` makes the partitions of the days to come and drops those of the days gone by.

ALTER TABLE inbox RENAME TO inbox_rest;
ALTER TABLE inbox_rest RENAME CONSTRAINT inbox_pkey TO inbox_rest_pkey;

CREATE TABLE inbox (
    consumer_group text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, event_id)
) PARTITION BY RANGE (event_id);

ALTER TABLE inbox ATTACH PARTITION inbox_rest DEFAULT;
