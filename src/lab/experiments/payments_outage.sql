-- name: unsettled
-- Orders that still wait for their payment.
SELECT count(*) FROM orders WHERE status IN ('created', 'payment_pending')

-- name: charged_twice
-- Orders with more than one captured charge at the provider.
SELECT count(*) FROM (
    SELECT p.order_id
    FROM payments p JOIN sandbox.charges c ON c.key = p.id::text
    WHERE c.status = 'captured'
    GROUP BY p.order_id HAVING count(*) > 1
) twice

-- name: provider_differs
-- Captured charges at the provider that are no captured payment of ours, and the other way round.
SELECT abs((SELECT count(*) FROM sandbox.charges WHERE status = 'captured')
         - (SELECT count(*) FROM payments WHERE status IN ('captured', 'refunding', 'refunded')))
