-- name: claim
-- Takes events for a group; returns those that nobody had taken before, and whether any key of the group is held.
WITH taken AS (
    INSERT INTO inbox (consumer_group, event_id)
    SELECT $1, event_id FROM unnest($2::uuid[]) AS event_id ORDER BY event_id
    ON CONFLICT DO NOTHING
    RETURNING event_id
)
SELECT event_id, EXISTS (
    SELECT FROM dead_letters
    WHERE consumer_group = $1 AND holds AND replayed_at IS NULL AND discarded_at IS NULL
) AS held
FROM taken

-- name: held_keys
-- Which of these keys are held by a dead letter; waits for whoever is about to resolve one, and looks again then.
SELECT k.topic, k.key
FROM unnest($2::text[], $3::bytea[]) AS k(topic, key)
CROSS JOIN LATERAL (
    SELECT FROM dead_letters d
    WHERE d.consumer_group = $1 AND d.topic = k.topic AND md5(d.key) = md5(k.key)
      AND d.holds AND d.replayed_at IS NULL AND d.discarded_at IS NULL
    ORDER BY d.id LIMIT 1
    FOR SHARE
) AS head

-- name: prune_inbox
-- Forgets events of the rest that were handled before a moment, a bounded number at a time.
DELETE FROM inbox_rest WHERE (consumer_group, event_id) IN (
    SELECT consumer_group, event_id FROM inbox_rest WHERE handled_at < $1 LIMIT $2
)

-- name: inbox_days
-- The partitions of days.
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = 'inbox'::regclass AND c.relname ~ '^inbox_[0-9]{8}$' ORDER BY c.relname

-- name: lock_inbox_days
-- Whether it is ours to change the partitions, until the end of the transaction.
SELECT pg_try_advisory_xact_lock(hashtext('backstay inbox of ' || current_schema()))

-- name: may_make_inbox_day
-- Whether it is ours to make this partition, and it can be made: it isn't there, and nothing of it is in the rest.
SELECT pg_try_advisory_xact_lock(hashtext('backstay inbox of ' || current_schema()))
   AND to_regclass($1) IS NULL
   AND NOT EXISTS (SELECT FROM inbox_rest WHERE event_id >= $2 AND event_id < $3)

-- name: inbox_day_rows
-- About how many rows a partition has.
SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass($1)

-- name: park
-- Keeps a record that could not be handled, or has to wait; a parked one that failed again is open again.
INSERT INTO dead_letters (
    consumer_group, event_id, type, topic, partition, "offset", recorded_at, key, value,
    header_names, header_values, cause, attempts, holds, waiting
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
ON CONFLICT (consumer_group, event_id) DO UPDATE
SET cause = excluded.cause, attempts = dead_letters.attempts + excluded.attempts, failed_at = now(),
    replayed_at = NULL, discarded_at = NULL, holds = excluded.holds, waiting = excluded.waiting

-- name: list_dead_letters
-- Dead letters, oldest first; NULL means any. The open ones, or those replayed.
SELECT * FROM dead_letters
WHERE ($1::bigint[] IS NULL OR id = ANY ($1))
  AND ($2::text IS NULL OR consumer_group = $2)
  AND ($3::text IS NULL OR type = $3)
  AND (replayed_at IS NOT NULL) = $4
  AND discarded_at IS NULL
  AND ($6::text IS NULL OR topic = $6)
  AND ($7::bytea IS NULL OR key = $7)
  AND ($8::text IS NULL OR strpos(cause, $8) > 0)
  AND ($9::timestamptz IS NULL OR parked_at >= $9)
  AND ($10::timestamptz IS NULL OR parked_at < $10)
ORDER BY id LIMIT $5

-- name: dead_letter_sources
-- Whose records a group has parked.
SELECT DISTINCT topic FROM dead_letters WHERE consumer_group = $1

-- name: request_replay
-- Asks the running consumer to handle these again, and notes who asked for what.
WITH asked AS (
    UPDATE dead_letters SET replay_requested_at = now()
    WHERE id = ANY ($1) AND replayed_at IS NULL AND discarded_at IS NULL
    RETURNING id
)
INSERT INTO dead_letter_audit (actor, action, filters, letters)
SELECT $2, 'replay', $3::jsonb, array_agg(id ORDER BY id) FROM asked HAVING count(*) > 0

-- name: discard
-- Gives these up, lets those that waited for them alone be handled, and notes who decided it.
WITH gone AS (
    UPDATE dead_letters SET discarded_at = now(), replay_requested_at = NULL
    WHERE id = ANY ($1) AND replayed_at IS NULL AND discarded_at IS NULL
    RETURNING id, consumer_group, topic, key
), freed AS (
    UPDATE dead_letters d SET replay_requested_at = now()
    FROM gone
    WHERE d.consumer_group = gone.consumer_group AND d.topic = gone.topic AND md5(d.key) = md5(gone.key)
      AND d.waiting AND d.holds AND d.id <> ALL ($1) AND d.replayed_at IS NULL AND d.discarded_at IS NULL
)
INSERT INTO dead_letter_audit (actor, action, filters, letters)
SELECT $2, 'discard', $3::jsonb, array_agg(id ORDER BY id) FROM gone HAVING count(*) > 0

-- name: audit
-- Who decided what about dead letters, the latest first.
SELECT * FROM dead_letter_audit ORDER BY id DESC LIMIT $1

-- name: requested
-- Which dead letters of a group are to be handled again now: those that no earlier one of their key holds back.
SELECT id FROM dead_letters d
WHERE consumer_group = $1 AND replay_requested_at IS NOT NULL AND discarded_at IS NULL
  AND NOT EXISTS (
    SELECT FROM dead_letters e
    WHERE e.consumer_group = d.consumer_group AND e.topic = d.topic AND md5(e.key) = md5(d.key) AND e.id < d.id
      AND e.holds AND e.replayed_at IS NULL AND e.discarded_at IS NULL
  )
ORDER BY id LIMIT $2

-- name: lock_requested
-- One of them, unless somebody else is at it.
SELECT * FROM dead_letters WHERE id = $1 AND replay_requested_at IS NOT NULL FOR UPDATE SKIP LOCKED

-- name: replayed
-- Its effect has happened; those that waited for it come next.
WITH done AS (
    UPDATE dead_letters SET replayed_at = now(), replay_requested_at = NULL, attempts = attempts + 1
    WHERE id = $1 RETURNING id, consumer_group, topic, key
)
UPDATE dead_letters d SET replay_requested_at = now()
FROM done
WHERE d.consumer_group = done.consumer_group AND d.topic = done.topic AND md5(d.key) = md5(done.key)
  AND d.id > done.id AND d.waiting AND d.holds AND d.replayed_at IS NULL AND d.discarded_at IS NULL AND d.replay_requested_at IS NULL

-- name: failed_again
-- It failed again: the new cause, and no further try until somebody asks.
UPDATE dead_letters
SET cause = $2, attempts = attempts + 1, failed_at = now(), replay_requested_at = NULL, waiting = false
WHERE id = $1

-- name: mark_started
-- The group has committed its first offset in a partition.
INSERT INTO consumer_marks (consumer_group, topic, partition, partitions, started_at) VALUES ($1, $2, $3, $4, now())
ON CONFLICT (consumer_group, topic, partition) DO UPDATE
SET started_at = coalesce(consumer_marks.started_at, excluded.started_at), partitions = excluded.partitions

-- name: mark_caught_up
-- The group has been at the end of a partition.
INSERT INTO consumer_marks (consumer_group, topic, partition, partitions, caught_up_at) VALUES ($1, $2, $3, $4, now())
ON CONFLICT (consumer_group, topic, partition) DO UPDATE
SET caught_up_at = coalesce(consumer_marks.caught_up_at, excluded.caught_up_at), partitions = excluded.partitions

-- name: started
-- Where the group has started.
SELECT topic, partition FROM consumer_marks WHERE consumer_group = $1 AND started_at IS NOT NULL

-- name: caught_up
-- The topics in which the group has been at the end of every partition.
SELECT topic FROM consumer_marks WHERE consumer_group = $1 AND topic = ANY ($2)
GROUP BY topic HAVING count(caught_up_at) >= max(partitions)

-- name: forget_start
-- Lets the group begin again where its offset was lost.
UPDATE consumer_marks SET started_at = NULL WHERE consumer_group = $1 AND ($2::text IS NULL OR topic = $2)
