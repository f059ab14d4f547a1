-- name: create_stock
-- A product's row, with nothing set.
INSERT INTO stock (sku, updated_at) VALUES ($1, $2) ON CONFLICT (sku) DO NOTHING

-- name: lock_stock
-- Rows of many products in one order for everybody, held until the transaction ends.
SELECT sku, on_hand, reserved, reorder_level, version, updated_at
FROM stock WHERE sku = ANY($1::text[]) ORDER BY sku FOR NO KEY UPDATE

-- name: find_stock
-- One product's stock.
SELECT sku, on_hand, reserved, reorder_level, version, updated_at FROM stock WHERE sku = $1

-- name: list_stock
-- One page by sku.
SELECT sku, on_hand, reserved, reorder_level, version, updated_at
FROM stock WHERE ($1::text IS NULL OR sku > $1) ORDER BY sku LIMIT $2

-- name: list_ledger
-- One page of a product's ledger, the newest line first.
SELECT version, kind, on_hand, reserved, order_id, at
FROM ledger WHERE sku = $1 AND ($2::bigint IS NULL OR version < $2) ORDER BY version DESC LIMIT $3

-- name: move_stock
-- New levels of locked products and their ledger lines, in one statement. One row per product that moved.
WITH change AS (
    SELECT * FROM unnest($1::text[], $2::integer[], $3::integer[], $4::integer[], $5::bigint[])
        AS c (sku, on_hand, reserved, reorder_level, version)
), moved AS (
    UPDATE stock s
    SET on_hand = s.on_hand + c.on_hand, reserved = s.reserved + c.reserved,
        reorder_level = c.reorder_level, version = c.version, updated_at = $8
    FROM change c
    WHERE s.sku = c.sku AND s.version = c.version - 1
    RETURNING s.sku, c.version, c.on_hand, c.reserved
)
INSERT INTO ledger (sku, version, kind, on_hand, reserved, order_id, at)
SELECT sku, version, $6::text, on_hand, reserved, $7::uuid, $8 FROM moved
RETURNING sku

-- name: opened
-- Those of these orders that have their row already.
SELECT order_id FROM reservations WHERE order_id = ANY($1::uuid[])

-- name: decide_orders
-- The one row of each of these orders, what they take of locked products, its lines in the ledger, and the events.
WITH opened AS (
    INSERT INTO reservations (order_id, customer_id, state, created_at, updated_at)
    SELECT o.*, $4, $4 FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS o
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id
), moved AS (
    UPDATE stock s
    SET reserved = s.reserved + c.reserved, version = c.after, updated_at = $4
    FROM unnest($5::text[], $6::integer[], $7::bigint[], $8::bigint[]) AS c (sku, reserved, before, after)
    WHERE s.sku = c.sku AND s.version = c.before
    RETURNING s.sku
), entered AS (
    INSERT INTO ledger (sku, version, kind, on_hand, reserved, order_id, at)
    SELECT l.sku, l.version, 'reserve', 0, l.reserved, l.order_id, $4
    FROM unnest($9::text[], $10::bigint[], $11::integer[], $12::uuid[]) AS l (sku, version, reserved, order_id)
)
-- told
SELECT (SELECT count(*) FROM opened) AS opened, (SELECT count(*) FROM moved) AS moved

-- name: bury_order
-- A tombstone for an order that was cancelled before anything was reserved; no row comes back if it has its row.
INSERT INTO reservations (order_id, customer_id, state, created_at, updated_at)
VALUES ($1, $2, 'void', $3, $3)
ON CONFLICT (order_id) DO NOTHING
RETURNING order_id

-- name: release_reservation
-- reserved -> released, once.
UPDATE reservations SET state = 'released', updated_at = $2
WHERE order_id = $1 AND state = 'reserved'
RETURNING order_id

-- name: held_by
-- What an order reserved, by the ledger.
SELECT sku, reserved AS quantity FROM ledger WHERE order_id = $1 AND kind = 'reserve' ORDER BY sku;

-- name: audit
-- Reservations by the transaction that changed them last, after a position; only what no running one can precede.
SELECT order_id, state, changed::text AS changed,
       (SELECT coalesce(jsonb_object_agg(sku, reserved), '{}') FROM ledger l
        WHERE l.order_id = r.order_id AND kind = 'reserve') AS reserved,
       (SELECT coalesce(jsonb_object_agg(sku, -reserved), '{}') FROM ledger l
        WHERE l.order_id = r.order_id AND kind = 'release') AS released
FROM reservations r
WHERE (changed, order_id) > ($1::text::xid8, $2) AND changed < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY changed, order_id LIMIT $3
