-- A parked record holds back the later ones of its key, and who decided what about dead letters is kept.

ALTER TABLE dead_letters
    ADD COLUMN holds boolean NOT NULL DEFAULT false,    -- while it is open, later records of its key are parked too
    ADD COLUMN waiting boolean NOT NULL DEFAULT false,  -- nothing is known to be wrong with it: an earlier one holds it
    ADD COLUMN discarded_at timestamptz;                -- somebody decided that its effect shall never happen

CREATE INDEX dead_letters_holding ON dead_letters (consumer_group, id)
WHERE holds AND replayed_at IS NULL AND discarded_at IS NULL;

CREATE TABLE dead_letter_audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL CHECK (action IN ('replay', 'discard')),
    filters jsonb NOT NULL,                             -- what was asked for
    letters bigint[] NOT NULL                           -- what that was
);
