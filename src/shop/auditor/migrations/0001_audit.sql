-- How far each service's changes have been read. `complete_at`: all that was there at that time has been read.
CREATE TABLE feeds (
    name         text PRIMARY KEY,
    cursor       text,
    complete_at  timestamptz NOT NULL DEFAULT '-infinity',
    error        text
);
INSERT INTO feeds (name) VALUES ('orders'), ('payments'), ('provider'), ('inventory'), ('notifications');

-- What each service said last, ids and figures only.
CREATE TABLE facts (
    feed      text NOT NULL REFERENCES feeds,
    id        text NOT NULL,
    order_id  uuid,
    charge    text,
    data      jsonb NOT NULL,
    seen_at   timestamptz NOT NULL,
    PRIMARY KEY (feed, id)
);
CREATE INDEX facts_order ON facts (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX facts_charge ON facts (charge) WHERE charge IS NOT NULL;

-- Subjects that are to be compared, or of which something is unexplained; the others have no row.
CREATE TABLE cases (
    subject   text PRIMARY KEY,
    check_at  timestamptz,                 -- none: not before its facts change
    cents     bigint NOT NULL DEFAULT 0,   -- unexplained
    currency  text NOT NULL DEFAULT 'USD',
    units     bigint NOT NULL DEFAULT 0    -- unexplained
);
CREATE INDEX cases_due ON cases (check_at) WHERE check_at IS NOT NULL;

-- The list for attention.
CREATE TABLE findings (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject      text NOT NULL,
    kind         text NOT NULL,
    amount       numeric(14, 2),
    currency     text,
    units        bigint NOT NULL,
    detail       text NOT NULL,
    first_seen   timestamptz NOT NULL,
    last_seen    timestamptz NOT NULL,
    resolved_at  timestamptz
);
CREATE UNIQUE INDEX findings_open ON findings (subject, kind, detail) WHERE resolved_at IS NULL;
CREATE INDEX findings_seen ON findings (first_seen);
