-- name: facts
-- What the server says about itself.
SELECT current_setting('wal_level') AS wal_level, current_setting('server_version_num')::int AS version,
       current_database() AS database, current_user::text AS role,
       pg_get_userbyid(c.relowner) AS owner,
       pg_has_role(c.relowner, 'USAGE') AND has_database_privilege(current_database(), 'CREATE') AS may_publish,
       EXISTS (SELECT FROM pg_publication WHERE pubname = $1) AS published
FROM pg_class c WHERE c.oid = 'outbox'::regclass

-- name: publishes
-- Whether publication $1 has the outbox's inserts.
SELECT EXISTS (
    SELECT FROM pg_publication p JOIN pg_publication_tables t ON t.pubname = p.pubname
    WHERE p.pubname = $1 AND p.pubinsert
      AND (t.schemaname, t.tablename) = (SELECT n.nspname, c.relname
                                         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                                         WHERE c.oid = 'outbox'::regclass)
)

-- name: slot
-- The replication slot $1: whose it is, whether somebody reads it, and how much WAL is kept for it.
SELECT s.database, s.plugin, s.active, coalesce(s.wal_status, 'lost') AS status,
       coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn()
                                     ELSE pg_current_wal_lsn() END, s.restart_lsn), 0)::bigint AS retained
FROM pg_replication_slots s WHERE s.slot_name = $1

-- name: create_slot
-- Waits for all transactions that write just now.
SELECT pg_create_logical_replication_slot($1, 'pgoutput')

-- name: drop_slot
-- Lets the server forget what it keeps for slot $1, unless somebody reads it.
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND NOT active

-- name: settled
-- Those of the shards of which the table has nothing to publish but what is known ($2), and no parked key; and what
-- this statement could see.
SELECT pg_current_snapshot()::text AS snapshot,
       ARRAY(SELECT s.shard FROM unnest($1::smallint[]) AS s(shard)
             WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.shard = s.shard AND o.seq <> ALL ($2::bigint[]))
               AND NOT EXISTS (SELECT FROM outbox_parked_keys k WHERE k.shard = s.shard)) AS shards

-- name: parked
-- Shards with parked keys, and what this statement could see.
SELECT pg_current_snapshot()::text AS snapshot,
       ARRAY(SELECT DISTINCT k.shard FROM outbox_parked_keys k) AS shards

-- name: delete
-- Deletes exactly these acknowledged rows of shards that relay $5 still holds under the given epochs; tells which, and
-- how many rows were there.
WITH held AS MATERIALIZED (
    SELECT s.shard
    FROM unnest($3::smallint[], $4::bigint[]) AS h(shard, epoch) JOIN outbox_shards s USING (shard, epoch)
    WHERE s.owner = $5
), gone AS (
    DELETE FROM outbox o
    USING unnest($1::smallint[], $2::bigint[]) AS a(shard, seq)
    WHERE o.shard = a.shard AND o.seq = a.seq AND a.shard = ANY (ARRAY(SELECT shard FROM held))
    RETURNING 1
)
SELECT ARRAY(SELECT shard FROM held) AS shards, (SELECT count(*) FROM gone) AS rows

-- name: spill
-- Writes events back under their old numbers; those that are there already, or parked, stay as they are.
INSERT INTO outbox (seq, id, aggregatetype, aggregateid, type, payload, headers, tracingspancontext, timestamp,
                    available_at)
OVERRIDING SYSTEM VALUE
SELECT r.*
FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::jsonb[], $8::text[],
            $9::timestamptz[], $10::timestamptz[])
     AS r(seq, id, topic, key, type, payload, headers, trace, timestamp, available_at)
WHERE NOT EXISTS (SELECT FROM outbox_parked p WHERE p.seq = r.seq)
ON CONFLICT (shard, seq) DO NOTHING

-- name: empties
-- Whether rows leave the table in the transaction that wrote them.
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'outbox'::regclass AND tgname = 'outbox_empty'
               AND tgenabled IN ('O', 'A'))

-- name: refuse
-- Lets new events be refused ($1), and says why, or takes them again; tells whether that changed.
UPDATE outbox_guard SET refusing = $1, reason = $2 WHERE refusing IS DISTINCT FROM $1 RETURNING true
