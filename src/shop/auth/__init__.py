"""Auth: users, sessions, and the keys by which everybody else knows them."""
