-- name: open_orders
-- Orders that still wait for their payment.
SELECT count(*) FROM orders WHERE status IN ('created', 'payment_pending')

-- name: confirmed
-- Orders that have to hold their units.
SELECT count(*) FROM orders WHERE status = 'confirmed'

-- name: holding
-- Orders that hold their units.
SELECT count(*) FROM reservations WHERE state = 'reserved'

-- name: open_compensations
-- Payments that still have to be undone.
SELECT count(*) FROM compensations WHERE closed_at IS NULL

-- name: unpublished
-- Events that still wait for their relay.
SELECT count(*) FROM outbox

-- name: unsent
-- Mails that still wait to be sent.
SELECT count(*) FROM notifications WHERE state = 'pending'

-- name: orders
-- What orders knows of these.
SELECT id, customer_id, status, lines, total FROM orders WHERE id = ANY($1::uuid[])

-- name: reservations
-- What became of these orders in the stock.
SELECT order_id, state FROM reservations WHERE order_id = ANY($1::uuid[])

-- name: reserved
-- Units that these orders hold, by the ledger.
SELECT order_id, sku, sum(reserved) AS units FROM ledger
WHERE order_id = ANY($1::uuid[]) GROUP BY order_id, sku HAVING sum(reserved) <> 0

-- name: stock
-- Levels, and the sums of the ledger that must be the same.
SELECT s.sku, s.on_hand, s.reserved, coalesce(sum(l.on_hand), 0) AS ledger_on_hand,
       coalesce(sum(l.reserved), 0) AS ledger_reserved, s.version, count(l.version) AS lines
FROM stock s LEFT JOIN ledger l USING (sku) GROUP BY s.sku

-- name: payments
-- These orders at payments, beside the entries of the provider's own ledger.
SELECT p.order_id, p.status, coalesce(sum(l.amount) FILTER (WHERE l.entry = 'captured'), 0) AS captured,
       coalesce(-sum(l.amount) FILTER (WHERE l.entry = 'refunded'), 0) AS refunded,
       count(l.key) FILTER (WHERE l.entry = 'captured') AS captures
FROM payments p
LEFT JOIN sandbox.ledger l ON l.key = p.id::text OR l.key = p.id::text || ':refund'
WHERE p.order_id = ANY($1::uuid[]) GROUP BY p.order_id, p.status

-- name: mails
-- Messages about these orders and to these customers.
SELECT id, kind, state, order_id, customer_id FROM notifications
WHERE order_id = ANY($1::uuid[]) OR (order_id IS NULL AND customer_id = ANY($2::uuid[]))

-- name: dead_letters
-- Events that nobody could handle.
SELECT count(*) FROM dead_letters
