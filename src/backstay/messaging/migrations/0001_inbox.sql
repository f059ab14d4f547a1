-- What consumers remember: events whose effect has happened, records that nobody could handle, where groups stand.

CREATE TABLE inbox (
    consumer_group text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer_group, event_id)
);

CREATE TABLE dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    consumer_group text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,                -- made from the record's place and bytes where it carries no id
    type text,                             -- NULL where the record doesn't say
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    recorded_at timestamptz,               -- the record's own time
    key bytea,
    value bytea,
    header_names text[] NOT NULL,
    header_values bytea[] NOT NULL,
    cause text NOT NULL,
    attempts integer NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    failed_at timestamptz NOT NULL DEFAULT now(),
    replay_requested_at timestamptz,       -- set by replay, cleared by the consumer when it has tried
    replayed_at timestamptz,               -- its effect has happened at last
    UNIQUE (consumer_group, event_id)
);

CREATE INDEX dead_letters_requested ON dead_letters (consumer_group, id) WHERE replay_requested_at IS NOT NULL;

CREATE TABLE consumer_marks (
    consumer_group text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    partitions integer NOT NULL,           -- of the whole topic, when this was written
    started_at timestamptz,                -- the group's first offset was committed
    caught_up_at timestamptz,              -- the group has been at the end for the first time
    PRIMARY KEY (consumer_group, topic, partition)
);
