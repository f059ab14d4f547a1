-- name: insert_product
-- A new product; no row comes back when the sku is taken.
INSERT INTO products (sku, name, category, supplier, unit, price, currency, available, version, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (sku) DO NOTHING
RETURNING sku

-- name: update_product
-- The next version of a product whose row is locked.
UPDATE products
SET name = $2, category = $3, supplier = $4, unit = $5, price = $6, currency = $7, available = $8,
    version = $9, updated_at = $10
WHERE sku = $1

-- name: find_product
-- One product as it is now.
SELECT sku, name, category, supplier, unit, price, currency, available, version, created_at, updated_at
FROM products WHERE sku = $1

-- name: lock_product
-- One product, held until the transaction ends.
SELECT sku, name, category, supplier, unit, price, currency, available, version, created_at, updated_at
FROM products WHERE sku = $1 FOR NO KEY UPDATE

-- name: list_products
-- One page; {column}, {type}, {direction} and {after} come from a closed list in store.py, everything else is bound.
SELECT sku, name, category, supplier, unit, price, currency, available, version, created_at, updated_at,
       ({column})::text AS place
FROM products
WHERE ($1::text IS NULL OR category = $1)
  AND ($2::boolean IS NULL OR available = $2)
  AND ($3::numeric IS NULL OR price >= $3)
  AND ($4::numeric IS NULL OR price <= $4)
  AND ($5::text IS NULL OR name ILIKE $5 OR category ILIKE $5)
  AND ($6::text IS NULL OR ({column}, sku) {after} ($6::text::{type}, $7::text))
ORDER BY {column} {direction}, sku {direction}
LIMIT $8
