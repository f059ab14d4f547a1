"""The whole system on one machine: embedded PostgreSQL and broker, the services as child processes, and their end."""
