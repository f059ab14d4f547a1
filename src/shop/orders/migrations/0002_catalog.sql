-- Our copy of the catalog, newest version of each product, and a hint of its stock.
CREATE TABLE products (
    sku       text PRIMARY KEY,
    name      text NOT NULL,
    price     numeric(14, 2) NOT NULL,
    currency  text NOT NULL,
    available boolean NOT NULL,
    version   bigint NOT NULL
);

CREATE TABLE stock (
    sku       text PRIMARY KEY,
    available integer NOT NULL,
    version   bigint NOT NULL
);
