-- name: lock_orders
-- The facts of many orders, held by their names until the transaction ends: rows may not exist yet.
SELECT pg_advisory_xact_lock(hashtextextended(k.name, $1)) FROM unnest($2::text[]) AS k (name)

-- name: add_facts
-- What events tell of orders, each of which comes once, added to what is known. Of two times the earlier stays, of two
-- equal facts either.
WITH fact AS (
    INSERT INTO orders AS o (generation, order_id, customer_id, total, currency, created_at, pending_at, confirmed_at,
                             cancelled_at, captured, refunded_at, refunded, reserved_at, rejected_at)
    SELECT $1, f.* FROM unnest($2::uuid[], $3::uuid[], $4::numeric[], $5::text[], $6::timestamptz[], $7::timestamptz[],
        $8::timestamptz[], $9::timestamptz[], $10::numeric[], $11::timestamptz[], $12::numeric[], $13::timestamptz[],
        $14::timestamptz[]) AS f
    ON CONFLICT (generation, order_id) DO UPDATE
    SET total = COALESCE(o.total, EXCLUDED.total),
        currency = COALESCE(o.currency, EXCLUDED.currency),
        created_at = LEAST(o.created_at, EXCLUDED.created_at),
        pending_at = LEAST(o.pending_at, EXCLUDED.pending_at),
        confirmed_at = LEAST(o.confirmed_at, EXCLUDED.confirmed_at),
        cancelled_at = LEAST(o.cancelled_at, EXCLUDED.cancelled_at),
        captured = COALESCE(o.captured, EXCLUDED.captured),
        refunded_at = LEAST(o.refunded_at, EXCLUDED.refunded_at),
        refunded = COALESCE(o.refunded, EXCLUDED.refunded),
        reserved_at = LEAST(o.reserved_at, EXCLUDED.reserved_at),
        rejected_at = LEAST(o.rejected_at, EXCLUDED.rejected_at)
)
INSERT INTO order_lines (generation, order_id, sku, name, quantity, amount, currency)
SELECT $1, l.*
FROM unnest($15::uuid[], $16::text[], $17::text[], $18::integer[], $19::numeric[], $20::text[]) AS l
ON CONFLICT (generation, order_id, sku) DO NOTHING

-- name: revenue
-- Confirmed orders and those of them cancelled since, in all.
SELECT currency, count(*) AS orders, sum(total) AS confirmed,
       count(cancelled_at) AS cancelled_orders,
       COALESCE(sum(total) FILTER (WHERE cancelled_at IS NOT NULL), 0) AS cancelled
FROM orders
WHERE generation = $1 AND confirmed_at IS NOT NULL
GROUP BY currency ORDER BY currency

-- name: revenue_by_day
-- The same by day (UTC): an order counts on the day it was confirmed, its cancellation on its own day.
SELECT day, currency, sum(orders) AS orders, sum(confirmed) AS confirmed,
       sum(cancelled_orders) AS cancelled_orders, sum(cancelled) AS cancelled
FROM (
    SELECT (confirmed_at AT TIME ZONE 'UTC')::date AS day, currency,
           1 AS orders, total AS confirmed, 0 AS cancelled_orders, 0 AS cancelled
    FROM orders
    WHERE generation = $1 AND confirmed_at IS NOT NULL
    UNION ALL
    SELECT (cancelled_at AT TIME ZONE 'UTC')::date, currency, 0, 0, 1, total
    FROM orders
    WHERE generation = $1 AND confirmed_at IS NOT NULL AND cancelled_at IS NOT NULL
) moves
WHERE day BETWEEN $2 AND $3
GROUP BY day, currency ORDER BY day, currency

-- name: payments
-- What was captured and given back, for all orders.
SELECT currency, COALESCE(sum(captured), 0) AS captured, COALESCE(sum(refunded), 0) AS refunded
FROM orders
WHERE generation = $1 AND (captured IS NOT NULL OR refunded IS NOT NULL)
GROUP BY currency ORDER BY currency

-- name: top_products
-- One page of products by what was sold of them in orders that stayed confirmed; {ranking} is a column of ours.
SELECT sku, currency, name, orders, units, revenue
FROM (
    SELECT l.sku, l.currency, (array_agg(l.name ORDER BY o.confirmed_at DESC))[1] AS name,
           count(*) AS orders, sum(l.quantity) AS units, sum(l.amount) AS revenue
    FROM order_lines l JOIN orders o USING (generation, order_id)
    WHERE generation = $1 AND o.confirmed_at IS NOT NULL AND o.cancelled_at IS NULL
    GROUP BY l.sku, l.currency
) sales
WHERE $2::text IS NULL OR {ranking} < $2::text::numeric
   OR ({ranking} = $2::text::numeric AND (sku, currency) > ($3::text, $4::text))
ORDER BY {ranking} DESC, sku, currency
LIMIT $5

-- name: customers
-- One page of customers with what they ordered, a row per currency.
SELECT customer_id, currency, count(*) AS orders,
       count(confirmed_at) FILTER (WHERE cancelled_at IS NULL) AS confirmed,
       COALESCE(sum(total) FILTER (WHERE confirmed_at IS NOT NULL AND cancelled_at IS NULL), 0) AS revenue
FROM orders
WHERE generation = $1 AND total IS NOT NULL AND ($2::uuid IS NULL OR (customer_id, currency) > ($2, $3::text))
GROUP BY customer_id, currency ORDER BY customer_id, currency
LIMIT $4

-- name: funnel
-- How far orders got.
SELECT count(created_at) AS created, count(pending_at) AS payment_pending, count(confirmed_at) AS confirmed,
       count(cancelled_at) AS cancelled, count(refunded_at) AS refunded,
       count(reserved_at) AS reserved, count(rejected_at) AS rejected,
       count(confirmed_at) FILTER (WHERE cancelled_at IS NULL) AS completed
FROM orders WHERE generation = $1

-- name: list_generations
-- All builds, the newest first.
SELECT generation, state, started_at, swapped_at FROM generations ORDER BY generation DESC

-- name: current_generation
-- The build that answers.
SELECT generation FROM generations WHERE state = 'current'

-- name: lock_generations
-- Nobody else starts, swaps or drops one until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('analytics.generations', 0))

-- name: open_generation
-- The next build; no row comes back while one is being built.
INSERT INTO generations (generation, state, started_at)
SELECT max(generation) + 1, 'building', $1 FROM generations
HAVING count(*) FILTER (WHERE state = 'building') = 0
RETURNING generation, state, started_at, swapped_at

-- name: retire_current
-- The build that answers makes room, if $1 is ready to.
UPDATE generations SET state = 'retired', retired_at = now()
WHERE state = 'current' AND EXISTS (SELECT FROM generations WHERE generation = $1 AND state = 'building')

-- name: make_current
-- building -> current.
UPDATE generations SET state = 'current', swapped_at = $2
WHERE generation = $1 AND state = 'building'
RETURNING generation

-- name: retired
-- Builds that were replaced more than $1 seconds ago, by the database's clock.
SELECT generation FROM generations
WHERE state = 'retired' AND retired_at < now() - make_interval(secs => $1) ORDER BY generation

-- name: forget_retired
-- A build whose tables are gone.
DELETE FROM generations WHERE generation = $1 AND state = 'retired'

-- name: short_wait
-- A lock that isn't granted soon is given up: while it is waited for, everybody else's queue behind it.
SET LOCAL lock_timeout = '500ms'
