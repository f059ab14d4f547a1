-- The transaction that changed a row last: readers of changes (`GET /internal/audit`) follow it from one position to the
-- next and miss none, whatever commits in whatever order. Rows from before count as changed by transaction 0.
CREATE FUNCTION stamp_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.changed := pg_current_xact_id();
    RETURN NEW;
END $$;

ALTER TABLE notifications ADD COLUMN changed xid8 NOT NULL DEFAULT '0';
ALTER TABLE notifications ALTER COLUMN changed SET DEFAULT pg_current_xact_id();
CREATE INDEX notifications_changed ON notifications (changed, id);
CREATE TRIGGER notifications_changed BEFORE UPDATE OF state ON notifications FOR EACH ROW EXECUTE FUNCTION stamp_change();

-- The age of a message by the clock of the database, for the metrics. Rows from before have none; their `created_at`
-- stands in for it.
ALTER TABLE notifications ADD COLUMN saved_at timestamptz;
ALTER TABLE notifications ALTER COLUMN saved_at SET DEFAULT now();
