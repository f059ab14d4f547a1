CREATE TABLE orders (
    id         uuid        PRIMARY KEY,
    guest      text        NOT NULL,
    drink      text        NOT NULL,
    status     text        NOT NULL CHECK (status IN ('placed', 'brewing')),  -- placed -> brewing
    beans_left integer,
    version    integer     NOT NULL,
    ordered_at timestamptz NOT NULL DEFAULT now()
);
