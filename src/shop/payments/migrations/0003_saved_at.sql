-- The age of a payment by the clock of the database, for the metrics. Rows from before have none; their `created_at`
-- stands in for it.
ALTER TABLE payments ADD COLUMN saved_at timestamptz;
ALTER TABLE payments ALTER COLUMN saved_at SET DEFAULT now();
