-- The sandbox provider's ledger can be read by its changes, as that of a real one.

ALTER TABLE sandbox.charges ADD COLUMN changed xid8 NOT NULL DEFAULT '0';
ALTER TABLE sandbox.charges ALTER COLUMN changed SET DEFAULT pg_current_xact_id();
CREATE INDEX sandbox_charges_changed ON sandbox.charges (changed, key);
CREATE TRIGGER sandbox_charges_changed BEFORE UPDATE OF status ON sandbox.charges FOR EACH ROW EXECUTE FUNCTION stamp_change();

ALTER TABLE sandbox.refunds ADD COLUMN changed xid8 NOT NULL DEFAULT '0';
ALTER TABLE sandbox.refunds ALTER COLUMN changed SET DEFAULT pg_current_xact_id();
CREATE INDEX sandbox_refunds_changed ON sandbox.refunds (changed, key);
