"""Auth, put together."""

from collections.abc import Mapping

from backstay.auth import TokenVerifier
from backstay.db import Database
from backstay.outbox import Outbox
from backstay.service import Service
from shop.auth.api import routes
from shop.auth.config import Settings
from shop.auth.jobs import jobs
from shop.auth.providers import KeySafe, Passwords
from shop.auth.service import Accounts, Clients, FirstAdmin, KeyRing, SharedClock, Tokens


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("auth", migrations="migrations")
    outbox = Outbox(db)
    clock = SharedClock(db)
    passwords = _passwords(settings)
    keys = _keys(db, settings, clock)
    tokens = Tokens(
        keys,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        access_life=settings.access_token_life,
        service_life=settings.service_token_life,
        clock=clock,
    )
    accounts = Accounts(
        db,
        outbox,
        passwords,
        tokens,
        refresh_life=settings.refresh_token_life,
        session_life=settings.session_life,
        registration_beat=settings.registration_beat,
        refresh_grace=settings.refresh_grace,
        first_admin=FirstAdmin(settings.admin_email, settings.admin_password) if settings.admin_email else None,
        clock=clock,
    )
    return Service(
        "auth",
        settings=settings,
        routes=routes(accounts, keys, Clients(settings.service_clients, tokens)),
        owns=[db, clock, keys, passwords, accounts, outbox.relay()],
        jobs=jobs(accounts, keys, clock),
        verifier=TokenVerifier(
            settings.token_issuer,
            settings.token_audience,
            keys,
            service="auth",
            max_lifetime=settings.token_max_lifetime,
            now=lambda: clock.now().timestamp(),
        ),
    )


def _passwords(settings: Settings) -> Passwords:
    return Passwords(
        memory_kib=settings.argon2_memory_kib,
        time_cost=settings.argon2_time,
        parallelism=settings.argon2_parallelism,
        threads=settings.argon2_threads,
        waiting=settings.argon2_waiting,
    )


def _keys(db: Database, settings: Settings, clock: SharedClock) -> KeyRing:
    return KeyRing(
        db,
        KeySafe(settings.key_encryption_secret),
        rotation=settings.key_rotation,
        token_life=max(settings.access_token_life, settings.service_token_life),
        max_age=settings.jwks_max_age,
        clock=clock,
    )
