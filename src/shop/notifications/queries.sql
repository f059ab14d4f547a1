-- name: save_address
-- A customer's address, as it is now.
INSERT INTO addresses (customer_id, email, name, updated_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (customer_id) DO UPDATE
SET email = EXCLUDED.email, name = EXCLUDED.name, updated_at = EXCLUDED.updated_at
WHERE addresses.updated_at < EXCLUDED.updated_at

-- name: save_notification
-- Messages, each about one event; a repeat does nothing.
INSERT INTO notifications (id, event_id, kind, customer_id, order_id, facts, state, next_attempt_at, created_at)
SELECT n.*, 'pending', now(), $7
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::jsonb[]) AS n
ON CONFLICT (event_id, kind) DO NOTHING

-- name: claim_due
-- Messages whose turn has come by the database's clock and whose address is known; ours for $1 seconds.
UPDATE notifications n
SET attempts = n.attempts + 1, next_attempt_at = now() + make_interval(secs => $1)
FROM (
    SELECT d.id, a.email, a.name
    FROM notifications d JOIN addresses a USING (customer_id)
    WHERE d.state = 'pending' AND d.next_attempt_at <= now()
    ORDER BY d.next_attempt_at
    LIMIT $2
    FOR UPDATE OF d SKIP LOCKED
) due
WHERE n.id = due.id
RETURNING n.id, n.event_id, n.kind, n.customer_id, n.order_id, n.facts, n.attempts, due.email, due.name

-- name: mark_sent
-- pending -> sent, once. The rows that this call moved.
UPDATE notifications SET state = 'sent', sent_at = $2, reason = NULL
WHERE id = ANY($1::uuid[]) AND state = 'pending'
RETURNING id

-- name: mark_failed
-- pending -> failed, with the mail server's reason.
UPDATE notifications n SET state = 'failed', reason = f.reason
FROM unnest($1::uuid[], $2::text[]) AS f (id, reason)
WHERE n.id = f.id AND n.state = 'pending'

-- name: put_off
-- Later again, with the reason.
UPDATE notifications n SET next_attempt_at = now() + make_interval(secs => p.pause), reason = p.reason
FROM unnest($1::uuid[], $2::text[], $3::float8[]) AS p (id, reason, pause)
WHERE n.id = p.id AND n.state = 'pending'

-- name: list_of_customer
-- One page of a customer's messages, the newest first.
SELECT id, kind, state, order_id, created_at, sent_at
FROM notifications
WHERE customer_id = $1 AND ($2::uuid IS NULL OR order_id = $2) AND ($3::uuid IS NULL OR id < $3)
ORDER BY id DESC
LIMIT $4

-- name: backlog
-- What has not been sent.
SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
       coalesce(extract(epoch FROM now() - min(coalesce(saved_at, created_at)) FILTER (WHERE state = 'pending')), 0)::float8
           AS oldest,
       count(*) FILTER (WHERE state = 'failed') AS failed
FROM notifications WHERE state <> 'sent';

-- name: audit
-- Messages by the transaction that changed them last, after a position; only what no running transaction can precede.
SELECT id, order_id, kind, state, changed::text AS changed
FROM notifications
WHERE order_id IS NOT NULL AND (changed, id) > ($1::text::xid8, $2) AND changed < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY changed, id LIMIT $3
