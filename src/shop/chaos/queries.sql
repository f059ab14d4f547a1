-- name: order_versions
-- The version of every order.
SELECT id::text AS id, version FROM orders

-- name: stock_versions
-- The version of every product's stock.
SELECT sku AS id, version FROM stock

-- name: product_versions
-- The version of every product.
SELECT sku AS id, version FROM products

-- name: payment_states
-- What has become of every payment that was ever wanted.
SELECT order_id::text AS id, status FROM payments WHERE amount IS NOT NULL

-- name: ever_reserved
-- Orders that held their units at some time.
SELECT DISTINCT order_id::text AS id FROM ledger WHERE kind = 'reserve'

-- name: ledger_lines
-- Lines of the stock's ledger, and how many of them would leave less than nothing.
SELECT count(*) AS lines, count(*) FILTER (WHERE reserved < 0 OR on_hand < reserved) AS impossible
FROM (SELECT sum(on_hand) OVER w AS on_hand, sum(reserved) OVER w AS reserved
      FROM ledger WINDOW w AS (PARTITION BY sku ORDER BY version)) AS running

-- name: unpublished
-- Events that still wait for their relay.
SELECT count(*) FROM outbox

-- name: inbox
-- Events that a service has applied, by consumer group.
SELECT consumer_group AS id, count(*) AS version FROM inbox GROUP BY consumer_group

-- name: mails_told
-- Mails that were sent.
SELECT id::text AS id FROM notifications WHERE state = 'sent'

-- name: order_story
-- What orders knows about one.
SELECT at, service || ': ' || what AS what, details::text AS details FROM timeline WHERE order_id = $1

-- name: payment_story
-- What was asked of the provider about one order.
SELECT a.at, 'payments: asked the provider to ' || a.step AS what, a.outcome || coalesce(' ' || a.reason, '') AS details
FROM attempts a JOIN payments p ON p.id = a.payment_id WHERE p.order_id = $1

-- name: stock_story
-- What one order did to the stock.
SELECT at, 'inventory: ' || kind || ' ' || sku AS what, 'reserved ' || reserved AS details FROM ledger WHERE order_id = $1

-- name: mail_story
-- Mails about one order.
SELECT created_at AS at, 'notifications: mail ' || kind AS what, state AS details FROM notifications WHERE order_id = $1
