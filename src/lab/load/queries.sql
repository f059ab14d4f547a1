-- name: unpublished
-- Events that still wait for their relay.
SELECT count(*) FROM outbox

-- name: inbox
-- Events that were applied, whatever the group.
SELECT count(*) FROM inbox

-- name: confirmed
-- Orders that are confirmed.
SELECT count(*) FROM orders WHERE status = 'confirmed'

-- name: decided
-- Orders that have been reserved or rejected.
SELECT count(*) FROM reservations WHERE state IN ('reserved', 'rejected')

-- name: told
-- Confirmed orders of which analytics knows.
SELECT count(confirmed_at) FROM orders WHERE generation = (SELECT generation FROM generations WHERE state = 'current')

-- name: mailed
-- Confirmations that were written.
SELECT count(*) FROM notifications WHERE kind = 'confirmed' AND state = 'sent'

-- name: heard
-- Orders whose reservation orders has heard of.
SELECT count(DISTINCT order_id) FROM timeline WHERE what = 'stock reserved'

-- name: unsettled
-- Orders whose payment nobody knows yet, and compensations that are open.
SELECT (SELECT count(*) FROM orders WHERE status IN ('created', 'payment_pending'))
     + (SELECT count(*) FROM compensations WHERE closed_at IS NULL)
