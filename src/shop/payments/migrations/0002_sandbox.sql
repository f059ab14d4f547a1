-- The sandbox provider's own books. They stand for the outside world: only the provider reads or writes them.
CREATE SCHEMA sandbox;

CREATE TABLE sandbox.charges (
    key       text PRIMARY KEY,
    amount    numeric(14, 2),            -- none if it was cancelled before any charge
    currency  text,
    status    text NOT NULL CHECK (status IN (
        'failing',    -- -> captured, cancelled: it answered with an error so far
        'captured', 'declined', 'cancelled')),
    reason    text,
    at        timestamptz NOT NULL DEFAULT now(),
    CHECK (status = 'cancelled' OR (amount > 0 AND currency IS NOT NULL))
);

CREATE TABLE sandbox.refunds (
    key        text PRIMARY KEY,
    charge_key text NOT NULL UNIQUE REFERENCES sandbox.charges,
    amount     numeric(14, 2) NOT NULL,
    currency   text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);

-- What was taken (+) and given back (-): its sum is what confirmed orders are worth.
CREATE VIEW sandbox.ledger AS
    SELECT key, 'captured' AS entry, amount, currency, at FROM sandbox.charges WHERE status = 'captured'
    UNION ALL
    SELECT key, 'refunded', -amount, currency, at FROM sandbox.refunds;
