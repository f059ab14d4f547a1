-- name: offered
-- A row for each product that a checkout asks for, without a name if there is none, and whether its key is known.
SELECT asked.sku, name, price, currency, products.available AS available, products.version AS version,
       stock.available AS stock, EXISTS (
           SELECT FROM idempotency_keys WHERE principal = $2 AND operation = $3 AND key = $4
       ) AS known
FROM unnest($1::text[]) AS asked (sku)
LEFT JOIN products USING (sku) LEFT JOIN stock USING (sku);

-- name: place
-- A new order with the claim of its key, the first line of its timeline and its event; nothing if the key is known.
WITH claimed AS (
    -- claiming
), placed AS (
    INSERT INTO orders (id, customer_id, status, lines, total, currency, payment_method, version,
                        created_at, updated_at, next_check_at)
    SELECT $1, $2, $3, $4, $5, $6, $7, 1, $8, $8, now() + make_interval(secs => $9) FROM claimed
), step AS (
    INSERT INTO timeline (order_id, at, service, what, details)
    SELECT $1, $8, 'orders', $10, $11 FROM claimed
)
-- told
SELECT count(*) FROM claimed;

-- name: find
-- One order.
SELECT id, customer_id, status, lines, total, currency, payment_method, payment_id, reason, version,
       created_at, updated_at
FROM orders WHERE id = $1;

-- name: lock
-- One order, locked until the transaction ends.
SELECT id, customer_id, status, lines, total, currency, payment_method, payment_id, reason, version,
       created_at, updated_at
FROM orders WHERE id = $1 FOR NO KEY UPDATE;

-- name: lock_all
-- The orders that a batch of events is about, locked in the one order that everybody takes.
SELECT id FROM orders WHERE id = ANY($1::uuid[]) ORDER BY id FOR NO KEY UPDATE;

-- name: page
-- A customer's orders, newest first, after a given one.
SELECT id, customer_id, status, lines, total, currency, payment_method, payment_id, reason, version,
       created_at, updated_at
FROM orders
WHERE customer_id = $1 AND ($2::uuid IS NULL OR id < $2) AND ($3::text IS NULL OR status = $3)
ORDER BY id DESC LIMIT $4;

-- name: move
-- An order's next version, the line of its timeline and its event, unless somebody else moved it first.
WITH moved AS (
    UPDATE orders SET status = $2, payment_id = $3, reason = $4, version = $5, updated_at = $6
    WHERE id = $1 AND version = $5 - 1
    RETURNING id
), step AS (
    INSERT INTO timeline (order_id, at, service, what, details) SELECT id, $6, 'orders', $7, $8 FROM moved
)
-- told
SELECT (SELECT count(*) FROM moved) AS moved -- kept
;

-- name: lock_open
-- Those of these orders that a payment could still move, locked in the one order that everybody takes.
SELECT id FROM orders WHERE id = ANY($1::uuid[]) AND status <> 'confirmed' ORDER BY id FOR NO KEY UPDATE;

-- name: confirmed
-- Those of these orders that are confirmed.
SELECT id FROM orders WHERE id = ANY($1::uuid[]) AND status = 'confirmed';

-- name: claim_due
-- Unsettled orders that are due by the database's clock, leased: each lease is longer than the one before. `waited` is
-- the age of the order in seconds (rows from before `saved_at` have none).
UPDATE orders
SET checks = checks + 1,
    next_check_at = now() + make_interval(secs => least($2 * 2 ^ least(checks, 10), $3) * (0.8 + 0.4 * random()))
WHERE id IN (
    SELECT id FROM orders
    WHERE status IN ('created', 'payment_pending') AND next_check_at <= now()
    ORDER BY next_check_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING id, customer_id, status, lines, total, currency, payment_method, payment_id, reason, version,
          created_at, updated_at, extract(epoch FROM now() - coalesce(saved_at, created_at))::float8 AS waited;

-- name: compensate
-- Something to undo at payments, due now; it is written down once.
INSERT INTO compensations (order_id, kind, reason, due_at, created_at) VALUES ($1, $2, $3, now(), now())
ON CONFLICT (order_id, kind) DO NOTHING;

-- name: claim_compensations
-- Open compensations that are due by the database's clock, leased: each lease is longer than the one before.
UPDATE compensations
SET attempts = attempts + 1,
    due_at = now() + make_interval(secs => least($2 * 2 ^ least(attempts, 10), $3) * (0.8 + 0.4 * random()))
WHERE (order_id, kind) IN (
    SELECT order_id, kind FROM compensations
    WHERE closed_at IS NULL AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
RETURNING order_id, kind, reason, attempts, created_at;

-- name: close_compensation
-- One of an order's compensations is done, with the final state at payments.
UPDATE compensations SET closed_at = now(), outcome = $3
WHERE order_id = $1 AND kind = $2 AND closed_at IS NULL
RETURNING kind;

-- name: close_compensations
-- All of an order's compensations are done, with the final state at payments.
UPDATE compensations SET closed_at = now(), outcome = $2 WHERE order_id = $1 AND closed_at IS NULL;

-- name: backlog
-- What has not ended: unsettled orders and open compensations, with the age of the oldest of each in seconds.
SELECT o.number AS unsettled, o.age AS oldest_unsettled_age,
       c.number AS open_compensations, c.age AS oldest_compensation_age
FROM (SELECT count(*) AS number, coalesce(extract(epoch FROM now() - min(coalesce(saved_at, created_at))), 0)::float8 AS age
      FROM orders WHERE status IN ('created', 'payment_pending')) o,
     (SELECT count(*) AS number, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS age
      FROM compensations WHERE closed_at IS NULL) c;

-- name: add_step
-- A line of an order's timeline; one event makes one line, however often it comes.
INSERT INTO timeline (order_id, at, service, what, details, event_id) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (event_id) WHERE event_id IS NOT NULL DO NOTHING;

-- name: add_steps
-- Many lines of timelines at once; one event makes one line, however often it comes.
INSERT INTO timeline (order_id, at, service, what, details, event_id)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::jsonb[], $6::uuid[])
ON CONFLICT (event_id) WHERE event_id IS NOT NULL DO NOTHING;

-- name: timeline
-- What happened to an order.
SELECT at, service, what, details, event_id FROM timeline WHERE order_id = $1 ORDER BY at, seq;

-- name: upsert_product
-- The newest version of a product in our copy of the catalog.
INSERT INTO products AS known (sku, name, price, currency, available, version) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (sku) DO UPDATE
SET name = excluded.name, price = excluded.price, currency = excluded.currency, available = excluded.available,
    version = excluded.version
WHERE known.version < excluded.version;

-- name: lock_products
-- The products that a batch of events is about, locked in the one order that everybody takes.
SELECT sku FROM products WHERE sku = ANY($1::text[]) ORDER BY sku FOR NO KEY UPDATE;

-- name: upsert_stock
-- The newest hints of stock, one for each product, in the one order that everybody takes.
INSERT INTO stock AS known (sku, available, version)
SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS told (sku, available, version) ORDER BY sku
ON CONFLICT (sku) DO UPDATE SET available = excluded.available, version = excluded.version
WHERE known.version < excluded.version;

-- name: lock_stock
-- The hints that a batch of events is about, locked in the one order that everybody takes.
SELECT sku FROM stock WHERE sku = ANY($1::text[]) ORDER BY sku FOR NO KEY UPDATE;

-- name: audit
-- Orders by the transaction that changed them last, after a position; only what no running transaction can precede.
SELECT id, status, reason, total, currency, lines, changed::text AS changed
FROM orders
WHERE (changed, id) > ($1::text::xid8, $2) AND changed < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY changed, id LIMIT $3;
