-- One row per claimed key; status, headers and body are null while the operation is in flight.
CREATE TABLE idempotency_keys (
    principal    text        NOT NULL,
    operation    text        NOT NULL,
    key          text        NOT NULL,
    body_hash    bytea       NOT NULL,
    operation_id uuid        NOT NULL,
    locked_until timestamptz NOT NULL,
    status       smallint,
    headers      jsonb,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, operation, key)
);

CREATE INDEX idempotency_keys_operation_id ON idempotency_keys (operation_id);
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);
