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
