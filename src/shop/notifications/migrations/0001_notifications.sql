-- The address book, as auth tells it.
CREATE TABLE addresses (
    customer_id  uuid PRIMARY KEY,
    email        text NOT NULL,
    name         text NOT NULL,
    updated_at   timestamptz NOT NULL
);

-- One row per message; `next_attempt_at` is also the lease of whoever is sending it.
CREATE TABLE notifications (
    id               uuid PRIMARY KEY,
    event_id         uuid NOT NULL,
    kind             text NOT NULL,
    customer_id      uuid NOT NULL,
    order_id         uuid,
    facts            jsonb NOT NULL,
    state            text NOT NULL CHECK (state IN (
        'pending',  -- -> sent, failed
        'sent',     -- final
        'failed'    -- final
    )),
    attempts         integer NOT NULL DEFAULT 0,
    next_attempt_at  timestamptz NOT NULL,
    reason           text,
    created_at       timestamptz NOT NULL,
    sent_at          timestamptz,
    UNIQUE (event_id, kind),
    CHECK ((state = 'sent') = (sent_at IS NOT NULL))
);

CREATE INDEX notifications_due ON notifications (next_attempt_at) WHERE state = 'pending';
CREATE INDEX notifications_unsent ON notifications (state, created_at) WHERE state <> 'sent';
CREATE INDEX notifications_of_customer ON notifications (customer_id, id);
