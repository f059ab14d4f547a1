-- Each key is written twice: room for its answer on the same page spares the indexes.
ALTER TABLE idempotency_keys SET (fillfactor = 50);
