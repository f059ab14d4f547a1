-- What is there, and what orders hold of it. Version 0: a product that was created, nothing set yet.
CREATE TABLE stock (
    sku            text PRIMARY KEY,
    on_hand        integer NOT NULL DEFAULT 0 CHECK (on_hand BETWEEN 0 AND 1000000000),
    reserved       integer NOT NULL DEFAULT 0 CHECK (reserved BETWEEN 0 AND on_hand),
    reorder_level  integer NOT NULL DEFAULT 0 CHECK (reorder_level >= 0),
    version        bigint NOT NULL DEFAULT 0 CHECK (version >= 0),
    updated_at     timestamptz NOT NULL
) WITH (fillfactor = 70);  -- hot rows: new versions stay on their page

-- One row per order, whichever of its events came first.
CREATE TABLE reservations (
    order_id     uuid PRIMARY KEY,
    customer_id  uuid NOT NULL,
    state        text NOT NULL CHECK (state IN (
        'reserved',  -- -> released
        'rejected',  -- final
        'released',  -- final
        'void'       -- final
    )),
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL
);

-- Every change of the stock. The sums of a product's lines are its stock; its versions have no gap.
CREATE TABLE ledger (
    sku       text NOT NULL,
    version   bigint NOT NULL CHECK (version > 0),
    kind      text NOT NULL CHECK (kind IN ('set', 'restock', 'reserve', 'release')),
    on_hand   integer NOT NULL,
    reserved  integer NOT NULL,
    order_id  uuid,
    at        timestamptz NOT NULL,
    PRIMARY KEY (sku, version),
    CHECK ((kind IN ('reserve', 'release')) = (order_id IS NOT NULL))
);

-- An order reserves a product once and releases it once.
CREATE UNIQUE INDEX ledger_once_per_order ON ledger (order_id, sku, kind) WHERE order_id IS NOT NULL;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only';
END $$;

CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
