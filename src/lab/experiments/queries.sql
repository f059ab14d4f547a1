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
