CREATE TABLE tickets (
    id uuid PRIMARY KEY,
    owner text NOT NULL,
    film text NOT NULL
);
