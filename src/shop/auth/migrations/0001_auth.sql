CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL,
    email_key text NOT NULL CONSTRAINT users_email_key UNIQUE,  -- the address as it is compared
    name text NOT NULL,
    password_hash text NOT NULL,
    roles text[] NOT NULL,
    password_version integer NOT NULL DEFAULT 1,  -- counts changes; hashing the same password anew is none
    created_at timestamptz NOT NULL,
    repeat_told_at timestamptz  -- when the owner was last told that somebody registered the address again
);

CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    end_reason text,
    CONSTRAINT sessions_end CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_of_user ON sessions (user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- One-time tokens of a session. The token itself is never stored.
CREATE TABLE refresh_tokens (
    hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_at);

CREATE TABLE login_failures (
    key text PRIMARY KEY,
    failures double precision NOT NULL,  -- at last_at; drains away
    last_at timestamptz NOT NULL,
    blocked_until timestamptz
);
CREATE INDEX login_failures_by_time ON login_failures (last_at);

CREATE TABLE signing_keys (
    kid text PRIMARY KEY,
    state text NOT NULL,  -- next -> current -> retiring
    sealed bytea NOT NULL,  -- the private key, encrypted
    created_at timestamptz NOT NULL,
    activated_at timestamptz,
    retires_at timestamptz,
    CONSTRAINT signing_keys_state CHECK (state IN ('next', 'current', 'retiring')),
    CONSTRAINT signing_keys_retirement CHECK ((state = 'retiring') = (retires_at IS NOT NULL))
);
CREATE UNIQUE INDEX signing_keys_one_next ON signing_keys (state) WHERE state = 'next';
CREATE UNIQUE INDEX signing_keys_one_current ON signing_keys (state) WHERE state = 'current';
