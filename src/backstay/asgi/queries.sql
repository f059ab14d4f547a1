-- name: claim_key
-- Takes a new key, or one whose holder's time is over; no row = the key is answered, in flight, or for another body.
-- $7 is the body's digest in the form of rows that an older release wrote.
INSERT INTO idempotency_keys AS k (principal, operation, key, body_hash, operation_id, locked_until)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::float8 * interval '1 second')
ON CONFLICT (principal, operation, key) DO UPDATE SET locked_until = excluded.locked_until
WHERE k.status IS NULL AND k.locked_until <= clock_timestamp() AND k.body_hash IN (excluded.body_hash, $7)
RETURNING operation_id;

-- name: claim_new_key
-- Takes a key that nobody has used; part of the caller's own statement.
INSERT INTO idempotency_keys (principal, operation, key, body_hash, operation_id, locked_until)
VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::float8 * interval '1 second')
ON CONFLICT (principal, operation, key) DO NOTHING
RETURNING operation_id;

-- name: read_key
-- The state of a key.
SELECT body_hash, operation_id, status, headers, body
FROM idempotency_keys
WHERE principal = $1 AND operation = $2 AND key = $3;

-- name: answer_key
-- Keeps the first answer of an operation; no row = it has one already, or no key was claimed for it.
UPDATE idempotency_keys SET status = $3, headers = $4, body = $5
WHERE operation_id = $1 AND ($2::text IS NULL OR operation = $2) AND status IS NULL
RETURNING 1;

-- name: read_answer
-- The kept answer of an operation.
SELECT status, headers, body
FROM idempotency_keys
WHERE operation_id = $1 AND ($2::text IS NULL OR operation = $2) AND status IS NOT NULL
LIMIT 1;

-- name: release_key
-- Gives up the claim of an operation without an answer.
DELETE FROM idempotency_keys WHERE operation_id = $1 AND status IS NULL RETURNING 1;

-- name: prune_keys
-- Forgets keys older than so many seconds, at most so many at a time.
WITH old AS (
    SELECT ctid FROM idempotency_keys
    WHERE created_at < now() - $1::float8 * interval '1 second'
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM idempotency_keys WHERE ctid IN (SELECT ctid FROM old)
