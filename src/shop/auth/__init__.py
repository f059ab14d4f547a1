"""Auth: users, sessions, and the keys by which all services verify their tokens."""
