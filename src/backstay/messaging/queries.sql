-- name: claim
-- Takes events for a group; returns those that nobody had taken before.
INSERT INTO inbox (consumer_group, event_id)
SELECT $1, event_id FROM unnest($2::uuid[]) AS event_id ORDER BY event_id
ON CONFLICT DO NOTHING
RETURNING event_id

-- name: prune_inbox
-- Forgets events handled before a moment, a bounded number at a time.
DELETE FROM inbox WHERE (consumer_group, event_id) IN (
    SELECT consumer_group, event_id FROM inbox WHERE handled_at < $1 LIMIT $2
)

-- name: park
-- Keeps a record that could not be handled; a parked one that failed again is open again.
INSERT INTO dead_letters (
    consumer_group, event_id, type, topic, partition, "offset", recorded_at, key, value,
    header_names, header_values, cause, attempts
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (consumer_group, event_id) DO UPDATE
SET cause = excluded.cause, attempts = dead_letters.attempts + excluded.attempts, failed_at = now(), replayed_at = NULL

-- name: list_dead_letters
-- Dead letters, oldest first; NULL means any. The open ones, or those replayed.
SELECT * FROM dead_letters
WHERE ($1::bigint[] IS NULL OR id = ANY ($1))
  AND ($2::text IS NULL OR consumer_group = $2)
  AND ($3::text IS NULL OR type = $3)
  AND (replayed_at IS NOT NULL) = $4
ORDER BY id LIMIT $5

-- name: request_replay
-- Asks the running consumer to handle these again.
UPDATE dead_letters SET replay_requested_at = now()
WHERE id = ANY ($1) AND replayed_at IS NULL

-- name: requested
-- Which dead letters of a group are waiting to be handled again.
SELECT id FROM dead_letters WHERE consumer_group = $1 AND replay_requested_at IS NOT NULL ORDER BY id LIMIT $2

-- name: lock_requested
-- One of them, unless somebody else is at it.
SELECT * FROM dead_letters WHERE id = $1 AND replay_requested_at IS NOT NULL FOR UPDATE SKIP LOCKED

-- name: replayed
-- Its effect has happened.
UPDATE dead_letters SET replayed_at = now(), replay_requested_at = NULL, attempts = attempts + 1 WHERE id = $1

-- name: failed_again
-- It failed again: the new cause, and no further try until somebody asks.
UPDATE dead_letters SET cause = $2, attempts = attempts + 1, failed_at = now(), replay_requested_at = NULL
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
