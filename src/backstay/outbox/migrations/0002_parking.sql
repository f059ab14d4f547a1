-- Two concurrent changes of an aggregate can't both publish the same version: the second insert fails.
CREATE UNIQUE INDEX outbox_version ON outbox (aggregatetype, aggregateid, aggregateversion)
    WHERE aggregateversion IS NOT NULL;

-- Keys that are not published: the broker refused one of their records for good, or an operator said so.
CREATE TABLE outbox_parked_keys (
    aggregatetype varchar(255) NOT NULL,
    aggregateid   varchar(255) NOT NULL,
    shard         smallint     GENERATED ALWAYS AS ((hashtextextended(aggregateid, 0) & 63)::smallint) STORED,
    reason        text         NOT NULL,
    parked_at     timestamptz  NOT NULL DEFAULT now(),
    PRIMARY KEY (aggregatetype, aggregateid)
);

-- Their events, in order: back they go when the key is resumed. A skipped one stays here, as the record of the decision.
CREATE TABLE outbox_parked (
    seq                bigint       PRIMARY KEY,
    id                 uuid         NOT NULL,
    aggregatetype      varchar(255) NOT NULL,
    aggregateid        varchar(255) NOT NULL,
    type               varchar(255) NOT NULL,
    payload            jsonb,
    aggregateversion   bigint,
    headers            jsonb,
    tracingspancontext varchar(256),
    timestamp          timestamptz  NOT NULL,
    available_at       timestamptz,
    parked_at          timestamptz  NOT NULL DEFAULT now(),
    skipped_at         timestamptz,
    -- What the payload was before an operator replaced it.
    original           jsonb
);

CREATE INDEX outbox_parked_key ON outbox_parked (aggregatetype, aggregateid, seq);
