-- name: read
-- The next rows of the given shards, as the relay's own table gives them; see `read` in queries.sql.
SELECT e.shard, e.seq, e.id, {prefix} || e.topic || {suffix} AS topic, e.key, e.type, e.payload, e.headers, e.trace,
       e.timestamp
FROM unnest($1::smallint[]) AS s(shard)
CROSS JOIN LATERAL (
    SELECT o.{shard} AS shard, o.{seq} AS seq, o.{id}::text AS id, o.{topic}::text AS topic, o.{key}::text AS key,
           o.{type}::text AS type, o.{payload}::text AS payload, {headers} AS headers, {trace} AS trace,
           {timestamp} AS timestamp
    FROM {table} o
    WHERE o.{shard} = s.shard
      AND o.{seq} <> ALL ($4::bigint[])
      AND ($5::text[] = '{{}}' OR {prefix} || o.{topic}::text || {suffix} <> ALL ($5::text[]))
      AND ($6::text[] = '{{}}' OR {prefix} || o.{topic}::text || {suffix} || E'\x1f' || o.{key}::text <> ALL ($6::text[]))
      -- around
    ORDER BY o.{seq}
    LIMIT $3
) AS e
LIMIT $2

-- name: around
-- What makes `read` leave out parked keys: their rows stay where they are.
AND NOT EXISTS (
    SELECT FROM outbox_parked_keys k
    WHERE k.aggregatetype = {prefix} || o.{topic}::text || {suffix} AND k.aggregateid = o.{key}::text
)

-- name: delete
-- Deletes exactly these acknowledged rows of shards that relay $5 still holds under the given epochs; tells which.
WITH held AS MATERIALIZED (
    SELECT s.shard
    FROM unnest($3::smallint[], $4::bigint[]) AS h(shard, epoch) JOIN outbox_shards s USING (shard, epoch)
    WHERE s.owner = $5
), gone AS (
    DELETE FROM {table} o
    USING unnest($1::smallint[], $2::bigint[]) AS a(shard, seq)
    WHERE o.{shard} = a.shard AND o.{seq} = a.seq AND a.shard = ANY (ARRAY(SELECT shard FROM held))
)
SELECT shard FROM held

-- name: park
-- Parks key $4 $5 of shard $2, if relay $1 still holds it under epoch $3. Tells whether the shard was held.
WITH held AS MATERIALIZED (
    SELECT shard FROM outbox_shards WHERE shard = $2::smallint AND epoch = $3::bigint AND owner = $1::uuid FOR SHARE
), key AS (
    INSERT INTO outbox_parked_keys (aggregatetype, aggregateid, reason)
    SELECT $4::text, $5::text, $6::text FROM held
    ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM held)

-- name: settle
-- As `settle` in queries.sql.
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
    DELETE FROM {table} o
    USING (SELECT unnest(shards) AS shard, unnest(seqs) AS seq FROM note WHERE mark::text = ANY ($5::text[])) AS n
    WHERE o.{shard} = n.shard AND o.{seq} = n.seq
    RETURNING 1
)
SELECT (SELECT count(*) FROM held) = cardinality($3::smallint[]) AS held, (SELECT count(*) FROM gone) AS deleted

-- name: backlog
-- How many rows of the shards wait (counted up to $2), and the age of the oldest in seconds.
SELECT (SELECT count(*) FROM (SELECT FROM {table} o WHERE o.{shard} = ANY ($1::smallint[]) LIMIT $2) AS waiting) AS pending,
       (SELECT extract(epoch FROM clock_timestamp() - min(head.timestamp))::float8
        FROM unnest($1::smallint[]) AS s(shard)
        CROSS JOIN LATERAL (
            SELECT {timestamp} AS timestamp FROM {table} o WHERE o.{shard} = s.shard ORDER BY o.{seq} LIMIT 1
        ) AS head
       ) AS oldest

-- name: topics
-- Rows by topic, among the first $1.
SELECT {prefix} || topic || {suffix} AS topic, count(*) AS rows
FROM (SELECT o.{topic}::text AS topic FROM {table} o LIMIT $1) AS some_rows
GROUP BY 1
ORDER BY rows DESC, topic

-- name: parked_keys
-- Parked keys, the longest parked first, each with its rows and the first event of them.
SELECT k.aggregatetype, k.aggregateid, k.reason, k.parked_at,
       (SELECT count(*) FROM {table} o
        WHERE o.{shard} = k.shard AND {prefix} || o.{topic}::text || {suffix} = k.aggregatetype
          AND o.{key}::text = k.aggregateid) AS rows,
       (SELECT o.{id} FROM {table} o
        WHERE o.{shard} = k.shard AND {prefix} || o.{topic}::text || {suffix} = k.aggregatetype
          AND o.{key}::text = k.aggregateid
        ORDER BY o.{seq} LIMIT 1) AS head
FROM outbox_parked_keys k
ORDER BY k.parked_at, k.aggregatetype, k.aggregateid
LIMIT $1

-- name: skip
-- Moves one event of a key out of the table for good, the first one or the one named, and keeps it as skipped, under its
-- number's negative (the number itself may be one of our own table).
WITH gone AS (
    DELETE FROM {table}
    WHERE ({shard}, {seq}) = (
        SELECT o.{shard}, o.{seq} FROM {table} o
        WHERE {prefix} || o.{topic}::text || {suffix} = $1::text AND o.{key}::text = $2::text
          AND ($3::uuid IS NULL OR o.{id}::text = $3::uuid::text)
        ORDER BY o.{seq} LIMIT 1)
    RETURNING *
)
INSERT INTO outbox_parked (seq, id, aggregatetype, aggregateid, type, payload, timestamp, skipped_at, original)
SELECT -o.{seq}, o.{id}::text::uuid, $1::text, o.{key}::text, o.{type}::text, to_jsonb(o.{payload}::text), now(), now(),
       to_jsonb(o)
FROM gone o
RETURNING id

-- name: edit
-- Gives one event of a key another payload, if there is one: the one named, or the first. What it was before the first
-- edit is kept.
WITH old AS MATERIALIZED (
    SELECT * FROM {table} o
    WHERE {prefix} || o.{topic}::text || {suffix} = $1::text AND o.{key}::text = $2::text
      AND ($3::uuid IS NULL OR o.{id}::text = $3::uuid::text)
    ORDER BY o.{seq} LIMIT 1
), kept AS (
    INSERT INTO outbox_parked (seq, id, aggregatetype, aggregateid, type, payload, timestamp, skipped_at, original)
    SELECT -o.{seq}, o.{id}::text::uuid, $1::text, o.{key}::text, o.{type}::text, to_jsonb(o.{payload}::text), now(),
           now(), to_jsonb(o)
    FROM old o
    WHERE $4::text IS NOT NULL
    ON CONFLICT (seq) DO NOTHING
)
UPDATE {table} AS t
SET {payload} = coalesce($4::text::{payload_type}, t.{payload})
FROM old
WHERE t.{shard} = old.{shard} AND t.{seq} = old.{seq}
RETURNING t.{id}

-- name: columns
-- The table's columns and their types.
SELECT attname AS name, format_type(atttypid, NULL) AS type
FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped

-- name: migration
-- What the relay needs of the table besides: numbers in the order of the inserts, and all events of a key in one shard.
ALTER TABLE {table}
    ADD COLUMN {seq} bigint GENERATED BY DEFAULT AS IDENTITY,
    ADD COLUMN {shard} smallint GENERATED ALWAYS AS ((hashtextextended({key}::text, 0) & 63)::smallint) STORED;

CREATE UNIQUE INDEX ON {table} ({shard}, {seq});

ALTER TABLE {table} SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_insert_threshold = -1,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 20000, autovacuum_vacuum_cost_delay = 0
)
