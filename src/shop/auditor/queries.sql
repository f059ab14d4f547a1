-- name: feed
-- How far one service's changes have been read, and what time it is now.
SELECT cursor, clock_timestamp() AS now FROM feeds WHERE name = $1;

-- name: lock_feed
-- The cursor of a feed, for whoever moves it now; nothing while another one does.
SELECT cursor FROM feeds WHERE name = $1 FOR UPDATE SKIP LOCKED;

-- name: move_feed
-- The changes up to here are kept; $3 is the time until which that is all of them, if it is.
UPDATE feeds SET cursor = $2, complete_at = coalesce($3, complete_at), error = NULL WHERE name = $1;

-- name: fail_feed
-- A feed couldn't be read.
UPDATE feeds SET error = $2 WHERE name = $1;

-- name: save_facts
-- What a service says now, in place of what it said before.
INSERT INTO facts (feed, id, order_id, charge, data, seen_at)
SELECT $1, f.id, f.order_id, f.charge, f.data, now()
FROM unnest($2::text[], $3::uuid[], $4::text[], $5::jsonb[]) AS f (id, order_id, charge, data)
ON CONFLICT (feed, id) DO UPDATE
SET order_id = excluded.order_id, charge = excluded.charge, data = excluded.data, seen_at = excluded.seen_at;

-- name: open_cases
-- Have the subjects of new facts compared, once they have been unchanged for $3 seconds: an order by its id, a charge by
-- that of the order that it pays, or by itself while no payment names it.
INSERT INTO cases (subject, check_at)
SELECT DISTINCT subject, now() + make_interval(secs => $3) FROM (
    SELECT order_id::text AS subject FROM unnest($1::uuid[]) AS o (order_id) WHERE order_id IS NOT NULL
    UNION ALL
    SELECT coalesce(p.order_id::text, 'charge:' || c.charge)
    FROM unnest($2::text[]) AS c (charge) LEFT JOIN facts p ON p.feed = 'payments' AND p.charge = c.charge
    WHERE c.charge IS NOT NULL
    UNION ALL
    SELECT k.subject FROM cases k JOIN unnest($2::text[]) AS c (charge) ON k.subject = 'charge:' || c.charge
) touched
ORDER BY subject
ON CONFLICT (subject) DO UPDATE SET check_at = excluded.check_at;

-- name: claim_cases
-- Subjects that are due and of which every feed has been read beyond the time at which they became so, locked.
SELECT subject FROM cases
WHERE check_at <= now() AND check_at <= (SELECT min(complete_at) FROM feeds)
ORDER BY check_at LIMIT $1 FOR UPDATE SKIP LOCKED;

-- name: facts_of
-- All facts about some subjects.
SELECT s.subject, f.feed, f.data, f.seen_at
FROM unnest($1::text[]) AS s (subject), LATERAL (
    SELECT feed, data, seen_at FROM facts
    WHERE order_id = CASE WHEN s.subject NOT LIKE 'charge:%' THEN s.subject::uuid END
    UNION ALL
    SELECT e.feed, e.data, e.seen_at FROM facts p JOIN facts e ON e.charge = p.charge AND e.feed = 'provider'
    WHERE p.feed = 'payments' AND p.order_id = CASE WHEN s.subject NOT LIKE 'charge:%' THEN s.subject::uuid END
    UNION ALL
    SELECT feed, data, seen_at FROM facts
    WHERE s.subject LIKE 'charge:%' AND feed = 'provider' AND charge = substr(s.subject, 8)
      AND NOT EXISTS (SELECT FROM facts p WHERE p.feed = 'payments' AND p.charge = substr(s.subject, 8))
) f;

-- name: save_cases
-- What is unexplained about compared subjects, and when they are to be compared again.
UPDATE cases c SET check_at = v.check_at, cents = v.cents, currency = v.currency, units = v.units
FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::text[], $5::bigint[])
    AS v (subject, check_at, cents, currency, units)
WHERE c.subject = v.subject;

-- name: close_cases
-- Subjects that add up, and that time alone can't change.
DELETE FROM cases WHERE subject = ANY($1::text[]);

-- name: save_findings
-- What doesn't add up; one that is on the list already stays as old as it is. Whether each is new.
INSERT INTO findings AS known (subject, kind, amount, currency, units, detail, first_seen, last_seen)
SELECT f.*, now(), now()
FROM unnest($1::text[], $2::text[], $3::numeric[], $4::text[], $5::bigint[], $6::text[]) AS f
ON CONFLICT (subject, kind, detail) WHERE resolved_at IS NULL DO UPDATE
SET amount = excluded.amount, currency = excluded.currency, units = excluded.units, last_seen = excluded.last_seen
RETURNING subject, kind, xmax = 0 AS is_new;

-- name: resolve_findings
-- Findings of compared subjects that this transaction has not seen again.
UPDATE findings SET resolved_at = now()
WHERE subject = ANY($1::text[]) AND resolved_at IS NULL AND last_seen < now()
RETURNING subject, kind;

-- name: findings
-- One page of the list, the newest first: open ones, or all, first seen at or after a time.
SELECT id, subject, kind, amount, currency, units, detail, first_seen, last_seen, resolved_at
FROM findings
WHERE ($1::timestamptz IS NULL OR first_seen >= $1) AND ($2 OR resolved_at IS NULL) AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4;

-- name: unexplained
-- Unexplained cents and units by currency.
SELECT currency, sum(cents)::bigint AS cents, sum(units)::bigint AS units
FROM cases WHERE cents > 0 OR units > 0 GROUP BY currency;

-- name: open_findings
-- Open findings by kind.
SELECT kind, count(*) AS number FROM findings WHERE resolved_at IS NULL GROUP BY kind;

-- name: waiting
-- Subjects that are still to be compared.
SELECT count(*) FROM cases WHERE check_at IS NOT NULL;

-- name: feeds
-- How long ago each feed was read to its end, in seconds; nothing for one that never was.
SELECT name, error,
       CASE WHEN isfinite(complete_at) THEN extract(epoch FROM now() - complete_at)::float8 END AS age
FROM feeds ORDER BY name;
