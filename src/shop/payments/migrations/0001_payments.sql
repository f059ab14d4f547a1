-- One payment per order, what was asked of the provider about it, and its one refund.
CREATE TABLE payments (
    id            uuid PRIMARY KEY,
    order_id      uuid NOT NULL UNIQUE,
    customer_id   uuid,
    amount        numeric(14, 2),
    currency      text,
    method        text,
    status        text NOT NULL CHECK (status IN (
        'processing',  -- -> captured, declined, voided, refunding
        'captured',    -- -> refunding
        'refunding',   -- -> refunded
        'declined', 'voided', 'refunded')),
    reason        text,
    unwanted      boolean NOT NULL DEFAULT false,
    version       integer NOT NULL,
    failures      integer NOT NULL DEFAULT 0,   -- calls to the provider that gave no answer
    calling_until timestamptz NOT NULL,         -- somebody is asking the provider until then
    next_check_at timestamptz NOT NULL,         -- then the job looks after it, if it is still open
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    CHECK (status = 'voided' OR (customer_id IS NOT NULL AND amount > 0 AND currency IS NOT NULL AND method IS NOT NULL))
);

CREATE INDEX payments_open ON payments (next_check_at) WHERE status IN ('processing', 'refunding');

CREATE TABLE attempts (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id uuid NOT NULL,
    step       text NOT NULL,
    outcome    text NOT NULL,
    reason     text,
    at         timestamptz NOT NULL,
    took       double precision NOT NULL        -- seconds
);

CREATE INDEX attempts_payment ON attempts (payment_id);

CREATE TABLE refunds (
    payment_id   uuid PRIMARY KEY REFERENCES payments,
    key          text NOT NULL UNIQUE,          -- at the provider
    amount       numeric(14, 2) NOT NULL,
    currency     text NOT NULL,
    reason       text NOT NULL,
    requested_at timestamptz NOT NULL,
    refunded_at  timestamptz
);
