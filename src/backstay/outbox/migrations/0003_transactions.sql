-- Whose outbox this is, for names outside of the database that must be the table's own, such as transactional ids.
CREATE TABLE outbox_identity (
    id uuid NOT NULL DEFAULT gen_random_uuid()
);

INSERT INTO outbox_identity DEFAULT VALUES;

-- Relays in strict mode: what the group of shards is about to publish in one transaction of the broker. Whoever takes the
-- group over asks the broker whether it has committed this mark; if so, these rows are published and are deleted.
CREATE TABLE outbox_transactions (
    shard_group smallint   PRIMARY KEY,
    mark        uuid       NOT NULL,
    shards      smallint[] NOT NULL,
    seqs        bigint[]   NOT NULL
) WITH (fillfactor = 40);
