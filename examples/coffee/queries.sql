-- name: save_order
-- A new order.
INSERT INTO orders (id, guest, drink, status, beans_left, version) VALUES ($1, $2, $3, $4, $5, $6);

-- name: mark_brewing
-- It is being made; a second time changes nothing.
UPDATE orders SET status = 'brewing', version = version + 1 WHERE id = $1 AND status = 'placed'
