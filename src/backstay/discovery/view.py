"""A client's view of the registry: the last answer, kept for one lease more after a restart of the registry.

A registry that restarted knows nobody until everybody has sent a heartbeat. Taking its list for the truth would empty
every client at once, so instances that were known before stay for one lease. Pure; `now` is monotonic seconds.
"""

from collections.abc import Mapping, Sequence

from backstay.discovery.instance import Instance

Apps = Mapping[str, Sequence[Instance]]


class View:
    """`fetched` takes an answer and gives what to believe."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._believed: Apps = {}
        self._life: str | None = None
        self._until = float("-inf")

    @property
    def restarted(self) -> float:
        """Until when instances are kept that the registry doesn't list."""
        return self._until

    def fetched(self, apps: Apps, now: float, *, life: str | None, missing_us: bool = False) -> Apps:
        """Return the instances to use after this answer.

        Args:
            apps: the answer.
            now: monotonic seconds.
            life: the registry's own name for its present life, if it tells one.
            missing_us: the answer lacks our own instance although we hold a lease.
        """
        if self._began_anew(apps, life, missing_us=missing_us) and self._believed:
            self._until = now + self._grace
        self._life = life
        self._believed = _united(apps, self._believed) if now < self._until else apps
        return self._believed

    def _began_anew(self, apps: Apps, life: str | None, *, missing_us: bool) -> bool:
        if life is not None and self._life is not None:
            return life != self._life
        return missing_us or not any(apps.values())


def _united(apps: Apps, before: Apps) -> Apps:
    united = {app: list(found) for app, found in apps.items()}
    for app, known in before.items():
        listed = {instance.id for instance in united.get(app, ())}
        united.setdefault(app, []).extend(instance for instance in known if instance.id not in listed)
    return united
