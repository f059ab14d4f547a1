-- name: intend
-- The decision to charge; nothing if the order has a payment or a tombstone already.
INSERT INTO payments (id, order_id, customer_id, amount, currency, method, status, version,
                      calling_until, next_check_at, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, 'processing', 1,
        now() + make_interval(secs => $8), now() + make_interval(secs => $8), $7, $7)
ON CONFLICT (order_id) DO NOTHING
RETURNING id;

-- name: bury
-- A tombstone; nothing if the order has a payment already.
INSERT INTO payments (id, order_id, status, reason, unwanted, version,
                      calling_until, next_check_at, created_at, updated_at)
VALUES ($1, $2, 'voided', $3, true, 1, now(), now(), $4, $4)
ON CONFLICT (order_id) DO NOTHING
RETURNING id;

-- name: find
-- The payment of an order.
SELECT id, order_id, customer_id, amount, currency, method, status, reason, unwanted, version, created_at
FROM payments WHERE order_id = $1;

-- name: lock
-- The payment of an order, locked until the transaction ends, and whether no lease on it runs.
SELECT id, order_id, customer_id, amount, currency, method, status, reason, unwanted, version, created_at,
       calling_until <= clock_timestamp() AS free
FROM payments WHERE order_id = $1 FOR UPDATE;

-- name: move
-- A payment's next version, the attempt that led there and its events, unless somebody else moved it first.
WITH moved AS (
    UPDATE payments
    SET status = $3, reason = $4, unwanted = $5, version = $6, failures = 0,
        calling_until = now() + make_interval(secs => $8), next_check_at = now() + make_interval(secs => $8),
        updated_at = $7
    WHERE id = $1 AND version = $2
    RETURNING id
), tried AS (
    INSERT INTO attempts (payment_id, step, outcome, reason, at, took)
    SELECT moved.id, $9, $10, $11, $7, $12 FROM moved WHERE $9::text IS NOT NULL
)
-- told
SELECT count(*) FROM moved;

-- name: call
-- The lease of whoever asks the provider next.
UPDATE payments
SET calling_until = now() + make_interval(secs => $2), next_check_at = now() + make_interval(secs => $2)
WHERE id = $1;

-- name: rest
-- A call to the provider gave no answer: the lease ends now, the job comes back later.
WITH tried AS (
    INSERT INTO attempts (payment_id, step, outcome, reason, at, took) VALUES ($1, $2, 'error', $3, $4, $5)
)
UPDATE payments
SET failures = failures + 1, calling_until = now(), next_check_at = now() + make_interval(secs => $6)
WHERE id = $1;

-- name: claim_stale
-- Open payments whose lease is over by the database's clock, leased for $1 seconds.
UPDATE payments
SET calling_until = now() + make_interval(secs => $1), next_check_at = now() + make_interval(secs => $1)
WHERE id IN (
    SELECT id FROM payments
    WHERE status IN ('processing', 'refunding') AND next_check_at <= now()
    ORDER BY next_check_at LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING id, order_id, customer_id, amount, currency, method, status, reason, unwanted, version, created_at,
          failures;

-- name: request_refund
-- The one refund of a payment; whoever asks later finds it there.
INSERT INTO refunds (payment_id, key, amount, currency, reason, requested_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (payment_id) DO NOTHING;

-- name: close_refund
-- The provider gave the money back.
UPDATE refunds SET refunded_at = $2 WHERE payment_id = $1 AND refunded_at IS NULL;

-- name: open_payments
-- How many payments wait for the provider, and the age of the oldest in seconds.
SELECT count(*) AS pending,
       coalesce(extract(epoch FROM now() - min(coalesce(saved_at, created_at))), 0)::float8 AS oldest
FROM payments WHERE status IN ('processing', 'refunding');

-- name: sandbox_charge
-- The charge under its key, made now if it is new or failed before; nothing if it is of another amount.
INSERT INTO sandbox.charges AS charge (key, amount, currency, status, reason) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (key) DO UPDATE
SET status = CASE charge.status WHEN 'failing' THEN 'captured' ELSE charge.status END
WHERE charge.status = 'cancelled' OR (charge.amount = excluded.amount AND charge.currency = excluded.currency)
RETURNING status, reason;

-- name: sandbox_find
-- What became of a charge.
SELECT status, reason FROM sandbox.charges WHERE key = $1;

-- name: sandbox_cancel
-- No charge under this key, ever, unless it is captured or declined already.
INSERT INTO sandbox.charges AS charge (key, status) VALUES ($1, 'cancelled')
ON CONFLICT (key) DO UPDATE
SET status = CASE charge.status WHEN 'failing' THEN 'cancelled' ELSE charge.status END
RETURNING status, reason;

-- name: sandbox_refund
-- The one refund of a charge, made now if it is new; nothing if there is no such captured charge.
INSERT INTO sandbox.refunds AS refund (key, charge_key, amount, currency)
SELECT $1, key, amount, currency FROM sandbox.charges
WHERE key = $2 AND status = 'captured' AND amount = $3 AND currency = $4
ON CONFLICT (charge_key) DO UPDATE SET amount = refund.amount
RETURNING true;

-- name: audit
-- Payments by the transaction that changed them last, after a position; only what no running transaction can precede.
SELECT id, order_id, status, amount, currency, changed::text AS changed
FROM payments
WHERE (changed, id) > ($1::text::xid8, $2) AND changed < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY changed, id LIMIT $3;

-- name: provider_cursor
-- How far the changes at the provider have been followed.
SELECT cursor FROM provider_cursor;

-- name: lock_provider_cursor
-- The same, for whoever follows them now; nothing while another one does.
SELECT cursor FROM provider_cursor FOR UPDATE SKIP LOCKED;

-- name: move_provider_cursor
-- The changes up to here are recorded.
UPDATE provider_cursor SET cursor = $1;

-- name: still_charged
-- Orders of those of these payments that a refund at the provider would still move.
SELECT id, order_id FROM payments
WHERE id = ANY($1::uuid[]) AND status IN ('processing', 'captured', 'refunding') ORDER BY id;

-- name: sandbox_changes
-- Captures and refunds by the transaction that made them, after a position; only what no running one can precede.
SELECT * FROM (
    SELECT 'captured' AS entry, key, key AS charge, amount, currency, at, changed::text AS position, changed
    FROM sandbox.charges WHERE status = 'captured'
    UNION ALL
    SELECT 'refunded', key, charge_key, amount, currency, at, changed::text, changed FROM sandbox.refunds
) entries
WHERE (changed, key) > ($1::text::xid8, $2) AND changed < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY changed, key LIMIT $3;
