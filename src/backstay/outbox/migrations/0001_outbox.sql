-- Events that were decided together with the state they belong to, waiting for their relay.
-- The first five columns are those of Debezium's outbox event router, so any writer in any language needs only them,
-- and a Debezium connector can take the relay's place. Rows are inserted and deleted, never updated.
CREATE TABLE outbox (
    id                 uuid         NOT NULL,
    aggregatetype      varchar(255) NOT NULL CHECK (aggregatetype <> ''),
    aggregateid        varchar(255) NOT NULL CHECK (aggregateid <> ''),
    type               varchar(255) NOT NULL,
    payload            jsonb,
    -- The order of an aggregate's events: taken at the insert, so insert after its row is locked or version-checked.
    seq                bigint       GENERATED ALWAYS AS IDENTITY,
    -- All events of a key are in one shard, and a shard has one relay at a time.
    shard              smallint     GENERATED ALWAYS AS ((hashtextextended(aggregateid, 0) & 63)::smallint) STORED,
    aggregateversion   bigint,
    headers            jsonb,
    tracingspancontext varchar(256),
    timestamp          timestamptz  NOT NULL DEFAULT now(),
    available_at       timestamptz,
    PRIMARY KEY (shard, seq)
) WITH (
    -- Rows live for milliseconds: vacuum by count, not by a share of a table that is usually empty.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0
);

-- Who relays a shard, until when. The epoch grows with every change of hands; what an old owner still wants is refused.
CREATE TABLE outbox_shards (
    shard       smallint PRIMARY KEY,
    owner       uuid,
    epoch       bigint   NOT NULL DEFAULT 0,
    lease_until timestamptz
) WITH (fillfactor = 40);

INSERT INTO outbox_shards (shard) SELECT generate_series(0, 63);

-- The relays that are there, so that each takes its fair share.
CREATE TABLE outbox_relays (
    relay      uuid        PRIMARY KEY,
    name       text        NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 40);
