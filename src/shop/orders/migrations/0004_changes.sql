-- The transaction that changed a row last: readers of changes (`GET /internal/audit`) follow it from one position to the
-- next and miss none, whatever commits in whatever order. Rows from before count as changed by transaction 0.
CREATE FUNCTION stamp_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END $$;

ALTER TABLE orders ADD COLUMN changed xid8 NOT NULL DEFAULT '0';
ALTER TABLE orders ALTER COLUMN changed SET DEFAULT pg_current_xact_id();
CREATE INDEX orders_changed ON orders (changed, id);
CREATE TRIGGER orders_changed BEFORE UPDATE OF status ON orders FOR EACH ROW EXECUTE FUNCTION stamp_change();
