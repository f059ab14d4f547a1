-- Insert and delete: events leave the table in the transaction that wrote them and are read from the log only. Run by
-- the owner of the table, once the slot exists. It works for writers in any language, in the same round trip.
CREATE TABLE IF NOT EXISTS outbox_guard (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    refusing boolean NOT NULL DEFAULT false,
    reason   text
);
INSERT INTO outbox_guard DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE OR REPLACE FUNCTION outbox_empty() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    why text;
BEGIN
    -- What a relay or an operator writes back stays, until it is published from here.
    IF current_setting('backstay.outbox_keep', true) = 'on' THEN
        RETURN NULL;
    END IF;
    SELECT reason INTO why FROM outbox_guard WHERE refusing;
    IF FOUND THEN
        RAISE EXCEPTION 'the outbox takes no events: %', why USING ERRCODE = 'configuration_limit_exceeded';
    END IF;
    DELETE FROM outbox o USING added a WHERE o.shard = a.shard AND o.seq = a.seq;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER outbox_empty AFTER INSERT ON outbox
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION outbox_empty();

-- A relay that reads the slot just now begins anew here, as the reader of an emptied table.
SELECT pg_logical_emit_message(true, 'backstay.outbox.empty', '');
