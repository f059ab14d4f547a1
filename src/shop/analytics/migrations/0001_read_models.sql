-- Builds of the read models. One answers; at most one more is being built.
CREATE TABLE generations (
    generation  integer PRIMARY KEY CHECK (generation > 0),
    state       text NOT NULL CHECK (state IN (
        'building',  -- -> current
        'current',   -- -> retired
        'retired'    -- its row goes with its tables
    )),
    started_at  timestamptz NOT NULL,
    swapped_at  timestamptz,
    retired_at  timestamptz
);

CREATE UNIQUE INDEX generations_one_current ON generations (state) WHERE state = 'current';
CREATE UNIQUE INDEX generations_one_building ON generations (state) WHERE state = 'building';

-- What is known about each order. Every fact but the two ids may still be on its way.
CREATE TABLE orders (
    generation    integer NOT NULL,
    order_id      uuid NOT NULL,
    customer_id   uuid NOT NULL,
    total         numeric(14, 2),
    currency      char(3),
    created_at    timestamptz,
    pending_at    timestamptz,
    confirmed_at  timestamptz,
    cancelled_at  timestamptz,
    captured      numeric(14, 2),
    refunded_at   timestamptz,
    refunded      numeric(14, 2),
    reserved_at   timestamptz,
    rejected_at   timestamptz,
    PRIMARY KEY (generation, order_id)
) PARTITION BY LIST (generation);

CREATE INDEX orders_of_customer ON orders (generation, customer_id);

CREATE TABLE order_lines (
    generation  integer NOT NULL,
    order_id    uuid NOT NULL,
    sku         text NOT NULL,
    name        text NOT NULL,
    quantity    integer NOT NULL,
    amount      numeric(14, 2) NOT NULL,
    currency    char(3) NOT NULL,
    PRIMARY KEY (generation, order_id, sku)
) PARTITION BY LIST (generation);

INSERT INTO generations (generation, state, started_at, swapped_at) VALUES (1, 'current', now(), now());
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES IN (1);
CREATE TABLE order_lines_1 PARTITION OF order_lines FOR VALUES IN (1);
