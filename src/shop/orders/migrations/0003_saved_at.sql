-- The age of an order by the clock of the database: no clock of a process decides what is overdue. Rows from before have
-- none; their `created_at` stands in for it.
ALTER TABLE orders ADD COLUMN saved_at timestamptz;
ALTER TABLE orders ALTER COLUMN saved_at SET DEFAULT now();
