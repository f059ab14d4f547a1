-- name: now
-- The time by the database's clock.
SELECT clock_timestamp()

-- name: insert_user
-- A new user; no row comes back when the address is known.
INSERT INTO users (id, email, email_key, name, password_hash, roles, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (email_key) DO NOTHING
RETURNING id

-- name: tell_repeat
-- The owner of a known address, if he may be told (again) that somebody registered it.
UPDATE users SET repeat_told_at = $2
WHERE email_key = $1 AND (repeat_told_at IS NULL OR repeat_told_at <= $3)
RETURNING id, email, name, roles, created_at

-- name: find_user
-- One user.
SELECT id, email, name, roles, created_at FROM users WHERE id = $1

-- name: find_email
-- Whether an address is known.
SELECT id FROM users WHERE email_key = $1

-- name: find_login
-- What a login needs, in one row: the user, if there is one, how long this caller has to wait, and since when the user
-- has logged in from this address ($4). Where he has, only his own limits ($3) count.
SELECT u.id, u.email, u.name, u.roles, u.created_at, u.password_hash, u.password_version, u.familiar_at,
       failed.keys > 0 AS has_failures,
       CASE WHEN u.familiar_at IS NULL THEN failed.blocked_until ELSE failed.own_blocked_until END AS blocked_until
FROM (SELECT max(f.blocked_until) AS blocked_until, count(*) AS keys,
             max(f.blocked_until) FILTER (WHERE f.key = ANY ($3::text[])) AS own_blocked_until
      FROM login_failures f WHERE f.key = ANY ($2::text[])) AS failed
LEFT JOIN (
    SELECT u.*, a.last_at AS familiar_at FROM users u
    LEFT JOIN familiar_addresses a ON a.user_id = u.id AND a.address = $4
    WHERE u.email_key = $1
) AS u ON true

-- name: note_address
-- A user logged in, or registered, from this address.
INSERT INTO familiar_addresses (user_id, address, last_at) VALUES ($1, $2, $3)
ON CONFLICT (user_id, address) DO UPDATE SET last_at = excluded.last_at

-- name: find_hash
-- The password of an address, hashed.
SELECT password_hash FROM users WHERE email_key = $1

-- name: find_password
-- The same for a user who is logged in.
SELECT email_key, password_hash, password_version FROM users WHERE id = $1

-- name: blocked_until
-- How long this caller has to wait.
SELECT max(blocked_until) FROM login_failures WHERE key = ANY ($1::text[])

-- name: note_failure
-- Count a failed login under each key. What was counted drains away with time; from a key's limit on it is blocked, each
-- time twice as long.
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::int[], $3::float8[], $4::float8[]) AS g (key, free, drain, longest)
)
INSERT INTO login_failures AS f (key, failures, last_at)
SELECT key, 1, $5::timestamptz FROM given ORDER BY key
ON CONFLICT (key) DO UPDATE SET (failures, last_at, blocked_until) = (
    SELECT level.now, excluded.last_at, CASE WHEN round(level.now) >= free THEN
        excluded.last_at + least(longest, 2 ^ (round(level.now) - free)) * interval '1 second' END
    FROM given, LATERAL (
        SELECT greatest(0, f.failures - extract(epoch FROM excluded.last_at - f.last_at)::float8 / drain) + 1
    ) AS counted (now), LATERAL (SELECT least(counted.now, free + 10)) AS level (now)
    WHERE given.key = f.key
)

-- name: forget_failures
-- A login succeeded.
DELETE FROM login_failures WHERE key = ANY ($1::text[])

-- name: replace_hash
-- The same password hashed anew, unless it was changed meanwhile.
UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2

-- name: open_session
-- A session with its first refresh token, unless the password was changed since it was checked.
WITH owner AS (
    SELECT id FROM users WHERE id = $2 AND password_version = $3 FOR SHARE
), session AS (
    INSERT INTO sessions (id, user_id, created_at, expires_at) SELECT $1, id, $4, $5 FROM owner RETURNING id
)
INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at) SELECT $6, id, $4, $7 FROM session
RETURNING session_id

-- name: lock_refresh_token
-- A refresh token with its session and user; token and session are held until the transaction ends.
SELECT t.session_id, t.expires_at, t.used_at, t.successor_seed, s.ended_at, s.expires_at AS session_expires_at, s.user_id, u.roles
FROM refresh_tokens t
JOIN sessions s ON s.id = t.session_id
JOIN users u ON u.id = s.user_id
WHERE t.hash = $1
FOR UPDATE OF t, s

-- name: rotate_refresh_token
-- Spend a token, with the seed of its successor, and add that.
WITH spent AS (UPDATE refresh_tokens SET used_at = $4, successor_seed = $6 WHERE hash = $1)
INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at) VALUES ($2, $3, $4, $5)

-- name: is_unused
-- Whether a refresh token is there and was never used.
SELECT EXISTS (SELECT FROM refresh_tokens WHERE hash = $1 AND used_at IS NULL)

-- name: end_session
-- End a session; no row comes back if it is over already.
UPDATE sessions SET ended_at = $2, end_reason = $3
WHERE id = $1 AND ended_at IS NULL
RETURNING user_id

-- name: change_password
-- Set a new password unless somebody else changed it since it was read.
UPDATE users SET password_hash = $3, password_version = password_version + 1
WHERE id = $1 AND password_version = $2
RETURNING id

-- name: end_sessions_of
-- End all living sessions of a user.
WITH living AS (
    SELECT id FROM sessions WHERE user_id = $1 AND ended_at IS NULL ORDER BY id FOR UPDATE
)
UPDATE sessions s SET ended_at = $2, end_reason = $3
FROM living WHERE s.id = living.id
RETURNING s.id

-- name: prune_sessions
-- Remove sessions that are over for good, with their tokens.
DELETE FROM sessions WHERE id IN (
    SELECT id FROM sessions WHERE expires_at <= $1 OR ended_at <= $2 LIMIT 1000 FOR UPDATE SKIP LOCKED
)

-- name: prune_refresh_tokens
-- Remove spent tokens that would be refused for their age anyway.
DELETE FROM refresh_tokens WHERE hash IN (
    SELECT hash FROM refresh_tokens WHERE expires_at <= $1 LIMIT 1000 FOR UPDATE SKIP LOCKED
)

-- name: prune_failures
-- Forget old failures.
DELETE FROM login_failures WHERE last_at <= $1

-- name: prune_addresses
-- Forget addresses that a user has not come from for long.
DELETE FROM familiar_addresses WHERE last_at <= $1

-- name: keys_lock
-- One at a time may decide about keys.
SELECT pg_advisory_xact_lock(hashtextextended('auth.signing-keys', 0))

-- name: keys
-- Every key that is published.
SELECT kid, state, sealed, created_at, activated_at, retires_at FROM signing_keys
ORDER BY created_at, kid

-- name: insert_key
-- A new key.
INSERT INTO signing_keys (kid, state, sealed, created_at, activated_at) VALUES ($1, $2, $3, $4, $5)

-- name: retire_key
-- The current key signs no longer, but is published until $2.
UPDATE signing_keys SET state = 'retiring', retires_at = $2 WHERE kid = $1

-- name: activate_key
-- The next key signs from now on.
UPDATE signing_keys SET state = 'current', activated_at = $2 WHERE kid = $1

-- name: delete_retired_keys
-- Keys that nobody needs any more.
DELETE FROM signing_keys WHERE state = 'retiring' AND retires_at <= $1
