-- A spent token keeps the seed that its successor was derived with, so that an answer that was lost can be given again.
ALTER TABLE refresh_tokens ADD COLUMN successor_seed bytea;

-- Addresses from which an account has logged in: limits that many people share don't stop it there.
CREATE TABLE familiar_addresses (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    address text NOT NULL,
    last_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, address)
);
CREATE INDEX familiar_addresses_by_time ON familiar_addresses (last_at);
