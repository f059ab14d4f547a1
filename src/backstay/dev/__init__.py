"""PostgreSQL and Kafka, processes, a TCP fault proxy and a mail catcher for development and tests (extra `dev`)."""

__all__: list[str] = []
