-- Orders with their lines, what is still to be undone for cancelled ones, and the timeline of each.
CREATE TABLE orders (
    id             uuid PRIMARY KEY,
    customer_id    uuid NOT NULL,
    status         text NOT NULL CHECK (status IN (
        'created',          -- -> payment_pending, confirmed, cancelled
        'payment_pending',  -- -> confirmed, cancelled
        'confirmed',        -- -> cancelled
        'cancelled')),
    lines          jsonb NOT NULL,              -- frozen at checkout, read and written as a whole
    total          numeric(14, 2) NOT NULL CHECK (total > 0),
    currency       text NOT NULL,
    payment_method text NOT NULL,
    payment_id     uuid,
    reason         text,
    version        integer NOT NULL,
    checks         integer NOT NULL DEFAULT 0,  -- how often the reconciler looked
    next_check_at  timestamptz NOT NULL,        -- when it looks next, if the order is still open
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
);

CREATE INDEX orders_customer ON orders (customer_id, id);
CREATE INDEX orders_open ON orders (next_check_at) WHERE status IN ('created', 'payment_pending');

CREATE TABLE compensations (
    order_id   uuid NOT NULL REFERENCES orders,
    kind       text NOT NULL CHECK (kind IN ('void', 'refund')),
    reason     text NOT NULL,
    due_at     timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    closed_at  timestamptz,
    outcome    text,                            -- the final state at payments
    PRIMARY KEY (order_id, kind)
);

CREATE INDEX compensations_open ON compensations (due_at) WHERE closed_at IS NULL;

CREATE TABLE timeline (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL,
    at       timestamptz NOT NULL,
    service  text NOT NULL,
    what     text NOT NULL,
    details  jsonb NOT NULL,
    event_id uuid
);

CREATE INDEX timeline_order ON timeline (order_id);
CREATE UNIQUE INDEX timeline_event ON timeline (event_id) WHERE event_id IS NOT NULL;
