-- Products at their newest version; older ones live on in the events.
CREATE TABLE products (
    sku         text PRIMARY KEY,
    name        text NOT NULL,
    category    text NOT NULL,
    supplier    text,
    unit        text,
    price       numeric(14, 2) NOT NULL CHECK (price > 0),
    currency    char(3) NOT NULL,
    available   boolean NOT NULL,
    version     bigint NOT NULL CHECK (version > 0),
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

-- Each order a list can have, so that a page costs the same wherever it starts.
CREATE INDEX products_by_name ON products (lower(name), sku);
CREATE INDEX products_by_price ON products (price, sku);
CREATE INDEX products_by_category ON products (category, sku);
