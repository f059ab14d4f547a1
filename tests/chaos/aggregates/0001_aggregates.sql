-- The writers' state. What is in `written` was committed, whatever its writer knows about it.
CREATE TABLE aggregates (name text PRIMARY KEY, version bigint NOT NULL) WITH (fillfactor = 50);
CREATE TABLE written (id uuid PRIMARY KEY, aggregate text NOT NULL, version bigint NOT NULL);
