-- name: append
-- Writes many events in one round trip; the order of the arrays is the order of their seq.
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, aggregateversion, headers, tracingspancontext)
SELECT r.id, r.topic, r.key, r.type, r.payload, r.version, r.headers, r.trace
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::bigint[], $7::jsonb[], $8::text[])
     WITH ORDINALITY AS r(id, topic, key, type, payload, version, headers, trace, n)
ORDER BY r.n

-- name: append_one
-- The same for one event: its values cost a client less than arrays of one element.
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, aggregateversion, headers, tracingspancontext)
VALUES ($1::uuid, $2::text, $3::text, $4::text, $5::jsonb, $6::bigint, $7::jsonb, $8::text)

-- name: read
-- The next rows of the given shards, shard by shard, each in order: at most $3 of a shard and $2 in all. Leaves out
-- rows that are known ($4), topics that wait ($5) and keys that wait ($6, topic and key joined by a unit separator).
SELECT e.shard, e.seq, e.id::text, e.aggregatetype, e.aggregateid, e.type, e.payload, e.headers, e.tracingspancontext,
       e.timestamp
FROM unnest($1::smallint[]) AS s(shard)
CROSS JOIN LATERAL (
    SELECT *
    FROM outbox o
    WHERE o.shard = s.shard
      AND o.seq <> ALL ($4::bigint[])
      AND ($5::text[] = '{}' OR o.aggregatetype <> ALL ($5::text[]))
      AND ($6::text[] = '{}' OR o.aggregatetype || E'\x1f' || o.aggregateid <> ALL ($6::text[]))
      AND (o.available_at IS NULL OR o.available_at <= now())
      -- around
    ORDER BY o.seq
    LIMIT $3
) AS e
LIMIT $2

-- name: delete
-- Deletes exactly these acknowledged rows of shards that relay $5 still holds under the given epochs; tells which.
WITH held AS MATERIALIZED (
    SELECT s.shard
    FROM unnest($3::smallint[], $4::bigint[]) AS h(shard, epoch) JOIN outbox_shards s USING (shard, epoch)
    WHERE s.owner = $5
), gone AS (
    DELETE FROM outbox o
    USING unnest($1::smallint[], $2::bigint[]) AS a(shard, seq)
    WHERE o.shard = a.shard AND o.seq = a.seq AND a.shard = ANY (ARRAY(SELECT shard FROM held))
)
SELECT shard FROM held

-- name: identity
-- The table's own name in the world.
SELECT id FROM outbox_identity

-- name: note
-- Notes that group $2 publishes rows $6 $7 under mark $5, if relay $1 holds all its shards under the given epochs.
WITH held AS MATERIALIZED (
    SELECT s.shard
    FROM outbox_shards s JOIN unnest($3::smallint[], $4::bigint[]) AS h(shard, epoch) USING (shard, epoch)
    WHERE s.owner = $1
    FOR SHARE OF s
)
INSERT INTO outbox_transactions (shard_group, mark, shards, seqs)
SELECT $2::smallint, $5::uuid, $6::smallint[], $7::bigint[]
WHERE (SELECT count(*) FROM held) = cardinality($3::smallint[])
ON CONFLICT (shard_group) DO UPDATE SET mark = excluded.mark, shards = excluded.shards, seqs = excluded.seqs
RETURNING true

-- name: settle
-- Forgets what group $2 has noted, if relay $1 holds all its shards under the given epochs; rows of a note whose mark the
-- broker has committed ($5) are published, so they are deleted, also where they were put aside meanwhile.
WITH held AS MATERIALIZED (
    SELECT s.shard
    FROM outbox_shards s JOIN unnest($3::smallint[], $4::bigint[]) AS h(shard, epoch) USING (shard, epoch)
    WHERE s.owner = $1
    FOR SHARE OF s
), note AS (
    DELETE FROM outbox_transactions
    WHERE shard_group = $2::smallint AND (SELECT count(*) FROM held) = cardinality($3::smallint[])
    RETURNING mark, shards, seqs
), gone AS (
    DELETE FROM outbox o
    USING (SELECT unnest(shards) AS shard, unnest(seqs) AS seq FROM note WHERE mark::text = ANY ($5::text[])) AS n
    WHERE o.shard = n.shard AND o.seq = n.seq
    RETURNING 1
), aside AS (
    DELETE FROM outbox_parked p
    USING (SELECT unnest(seqs) AS seq FROM note WHERE mark::text = ANY ($5::text[])) AS n
    WHERE p.seq = n.seq AND p.skipped_at IS NULL
    RETURNING 1
)
SELECT (SELECT count(*) FROM held) = cardinality($3::smallint[]) AS held,
       (SELECT count(*) FROM gone) + (SELECT count(*) FROM aside) AS deleted

-- name: park
-- Parks key $4 $5 of shard $2, if relay $1 still holds it under epoch $3: no row of it is read again. Takes its rows
-- out of the outbox, but those that are published or on their way ($7). Tells whether the shard was held.
WITH held AS MATERIALIZED (
    SELECT shard FROM outbox_shards WHERE shard = $2::smallint AND epoch = $3::bigint AND owner = $1::uuid FOR SHARE
), key AS (
    INSERT INTO outbox_parked_keys (aggregatetype, aggregateid, reason)
    SELECT $4::text, $5::text, $6::text FROM held
    ON CONFLICT DO NOTHING
), gone AS (
    DELETE FROM outbox o USING held
    WHERE o.shard = held.shard AND o.aggregatetype = $4::text AND o.aggregateid = $5::text
      AND o.seq <> ALL ($7::bigint[])
    RETURNING o.*
), moved AS (
    INSERT INTO outbox_parked (seq, id, aggregatetype, aggregateid, type, payload, aggregateversion, headers,
                               tracingspancontext, timestamp, available_at)
    SELECT seq, id, aggregatetype, aggregateid, type, payload, aggregateversion, headers,
           tracingspancontext, timestamp, available_at
    FROM gone
)
SELECT EXISTS (SELECT FROM held)

-- name: gather
-- Takes the rows of parked keys that have come since out of the outbox, in shards that relay $1 holds under the given
-- epochs, but those that are published or on their way ($4).
WITH held AS MATERIALIZED (
    SELECT s.shard
    FROM outbox_shards s JOIN unnest($2::smallint[], $3::bigint[]) AS h(shard, epoch) USING (shard, epoch)
    WHERE s.owner = $1
    FOR SHARE OF s
), keys AS MATERIALIZED (
    SELECT k.shard, k.aggregatetype, k.aggregateid
    FROM outbox_parked_keys k JOIN held USING (shard)
    FOR SHARE OF k
), gone AS (
    DELETE FROM outbox o USING keys k
    WHERE o.shard = k.shard AND o.aggregatetype = k.aggregatetype AND o.aggregateid = k.aggregateid
      AND o.seq <> ALL ($4::bigint[])
    RETURNING o.*
)
INSERT INTO outbox_parked (seq, id, aggregatetype, aggregateid, type, payload, aggregateversion, headers,
                           tracingspancontext, timestamp, available_at)
SELECT seq, id, aggregatetype, aggregateid, type, payload, aggregateversion, headers,
       tracingspancontext, timestamp, available_at
FROM gone

-- name: renew
-- Says that relay $1 is there, and prolongs the leases it still has.
WITH me AS (
    INSERT INTO outbox_relays (relay, name, expires_at)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
    ON CONFLICT (relay) DO UPDATE SET expires_at = excluded.expires_at
)
UPDATE outbox_shards
SET lease_until = clock_timestamp() + make_interval(secs => $3)
WHERE owner = $1 AND lease_until > clock_timestamp()

-- name: shards
-- Every shard: its owner, its epoch, whether the lease still runs; how many relays are there, and parked keys.
SELECT shard, owner, epoch, coalesce(lease_until > clock_timestamp(), false) AS live,
       (SELECT count(*) FROM outbox_relays WHERE expires_at > clock_timestamp()) AS members,
       (SELECT count(*) FROM outbox_parked_keys) AS parked
FROM outbox_shards
ORDER BY shard

-- name: forget
-- Forgets relays that have been gone for long.
DELETE FROM outbox_relays WHERE expires_at < clock_timestamp() - interval '10 minutes'

-- name: acquire
-- Takes those of the shards that are free, or were ours before; each under a new epoch.
UPDATE outbox_shards
SET owner = $1, epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => $3)
WHERE shard = ANY ($2::smallint[]) AND (owner IS NULL OR owner = $1 OR lease_until <= clock_timestamp())
RETURNING shard, epoch

-- name: release
-- Gives shards back, if they are still ours.
UPDATE outbox_shards s
SET owner = NULL, lease_until = NULL
FROM unnest($2::smallint[], $3::bigint[]) AS h(shard, epoch)
WHERE s.shard = h.shard AND s.epoch = h.epoch AND s.owner = $1

-- name: leave
-- Says that relay $1 is gone.
DELETE FROM outbox_relays WHERE relay = $1

-- name: backlog
-- How many rows of the shards wait (counted up to $2), and the age of the oldest in seconds.
SELECT (SELECT count(*) FROM (SELECT FROM outbox WHERE shard = ANY ($1::smallint[]) LIMIT $2) AS waiting) AS pending,
       (SELECT extract(epoch FROM clock_timestamp() - min(head.timestamp))::float8
        FROM unnest($1::smallint[]) AS s(shard)
        CROSS JOIN LATERAL (SELECT o.timestamp FROM outbox o WHERE o.shard = s.shard ORDER BY o.seq LIMIT 1) AS head
       ) AS oldest

-- name: relays
-- The relays that are there, and how many shards each has.
SELECT r.relay, r.name, count(s.shard) AS shards
FROM outbox_relays r
LEFT JOIN outbox_shards s ON s.owner = r.relay AND s.lease_until > clock_timestamp()
WHERE r.expires_at > clock_timestamp()
GROUP BY r.relay, r.name
ORDER BY r.name, r.relay

-- name: topics
-- Rows by topic, among the first $1.
SELECT aggregatetype AS topic, count(*) AS rows
FROM (SELECT aggregatetype FROM outbox LIMIT $1) AS some_rows
GROUP BY aggregatetype
ORDER BY rows DESC, topic

-- name: parked_keys
-- Parked keys, the longest parked first, each with its rows and the first event of them.
SELECT k.aggregatetype, k.aggregateid, k.reason, k.parked_at,
       (SELECT count(*) FROM outbox_parked p
        WHERE p.aggregatetype = k.aggregatetype AND p.aggregateid = k.aggregateid AND p.skipped_at IS NULL) AS rows,
       (SELECT p.id FROM outbox_parked p
        WHERE p.aggregatetype = k.aggregatetype AND p.aggregateid = k.aggregateid AND p.skipped_at IS NULL
        ORDER BY p.seq LIMIT 1) AS head
FROM outbox_parked_keys k
ORDER BY k.parked_at, k.aggregatetype, k.aggregateid
LIMIT $1

-- name: mark_parked
-- Says that a key is parked; relays put its rows aside.
INSERT INTO outbox_parked_keys (aggregatetype, aggregateid, reason) VALUES ($1, $2, $3)
ON CONFLICT DO NOTHING RETURNING true

-- name: unmark_parked
-- Says that a key is parked no longer.
DELETE FROM outbox_parked_keys WHERE aggregatetype = $1 AND aggregateid = $2 RETURNING true

-- name: keep
-- The rows that this transaction inserts stay in the table, and relays that read the slot know it.
SELECT set_config('backstay.outbox_keep', 'on', true), pg_logical_emit_message(true, 'backstay.outbox.keep', '')

-- name: move_back
-- Puts the parked rows of a key back under their old numbers; tells how many.
WITH back AS (
    DELETE FROM outbox_parked
    WHERE aggregatetype = $1 AND aggregateid = $2 AND skipped_at IS NULL
    RETURNING *
), moved AS (
    INSERT INTO outbox (seq, id, aggregatetype, aggregateid, type, payload, aggregateversion, headers,
                        tracingspancontext, timestamp, available_at)
    OVERRIDING SYSTEM VALUE
    SELECT seq, id, aggregatetype, aggregateid, type, payload, aggregateversion, headers,
           tracingspancontext, timestamp, available_at
    FROM back
)
SELECT count(*) FROM back

-- name: skip
-- Leaves one parked event out for good: the first of its key, or the one named.
UPDATE outbox_parked SET skipped_at = now()
WHERE seq = (SELECT seq FROM outbox_parked
             WHERE aggregatetype = $1 AND aggregateid = $2 AND skipped_at IS NULL
               AND ($3::uuid IS NULL OR id = $3::uuid)
             ORDER BY seq LIMIT 1)
RETURNING id

-- name: edit
-- Gives one parked event another payload, if there is one, and takes back that it was skipped: the one named, or the
-- first of its key that was not skipped.
UPDATE outbox_parked
SET original = CASE WHEN $4::text IS NULL THEN original ELSE coalesce(original, payload) END,
    payload = coalesce($4::jsonb, payload),
    skipped_at = NULL
WHERE seq = (SELECT seq FROM outbox_parked
             WHERE aggregatetype = $1 AND aggregateid = $2
               AND CASE WHEN $3::uuid IS NULL THEN skipped_at IS NULL ELSE id = $3::uuid END
             ORDER BY seq LIMIT 1)
RETURNING id
