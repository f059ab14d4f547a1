-- The transaction that changed a row last: readers of changes (`GET /internal/audit`) follow it from one position to the
-- next and miss none, whatever commits in whatever order. Rows from before count as changed by transaction 0.
CREATE FUNCTION stamp_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END $$;

ALTER TABLE payments ADD COLUMN changed xid8 NOT NULL DEFAULT '0';
ALTER TABLE payments ALTER COLUMN changed SET DEFAULT pg_current_xact_id();
CREATE INDEX payments_changed ON payments (changed, id);
CREATE TRIGGER payments_changed BEFORE UPDATE OF status ON payments FOR EACH ROW EXECUTE FUNCTION stamp_change();

-- How far the changes at the provider have been followed.
CREATE TABLE provider_cursor (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    cursor  text
);
INSERT INTO provider_cursor DEFAULT VALUES;
