"""What may be said of TLS to a database."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from backstay.db import secured
from backstay.errors import ConfigError
from backstay.service import ServiceSettings

DSN = "postgresql://bar:hunter2@db:5432/bar"


def test_nothing_said_leaves_the_url_as_it_is() -> None:
    """Also one with parameters of its own."""
    for dsn in (DSN, f"{DSN}?application_name=x&sslmode=require"):
        assert secured(dsn) == dsn


def test_what_is_said_beside_the_url_goes_into_it(tmp_path: Path) -> None:
    """So that every driver reads the same."""
    ca = tmp_path / "ca.pem"
    ca.touch()

    assert secured(DSN, sslmode="require") == f"{DSN}?sslmode=require"
    assert secured(DSN, ca=str(ca)) == f"{DSN}?sslrootcert={ca}&sslmode=verify-full"
    assert secured(f"{DSN}?a=b", sslmode="verify-ca", ca=str(ca)) == f"{DSN}?a=b&sslmode=verify-ca&sslrootcert={ca}"
    assert secured(f"{DSN}?sslmode=require", sslmode="require") == f"{DSN}?sslmode=require"
    assert secured("postgresql://u@db/{service}", sslmode="require") == "postgresql://u@db/{service}?sslmode=require"


@pytest.mark.parametrize(
    ("dsn", "sslmode", "ca", "reason"),
    [
        (DSN, "verify", "", "must be one of disable, allow"),
        (f"{DSN}?sslmode=yes", "", "", "must be one of disable, allow"),
        (DSN, "verify-full", "", "needs a certificate authority"),
        (f"{DSN}?sslmode=verify-ca", "", "", "needs a certificate authority"),
        (DSN, "", "/nowhere/ca.pem", "'/nowhere/ca.pem' is no file"),
        (DSN, "prefer", "/etc/hostname", "verifies nothing"),
        (f"{DSN}?sslmode=require", "verify-full", "", "leave one of them out"),
    ],
)
def test_what_contradicts_itself_is_refused(dsn: str, sslmode: str, ca: str, reason: str) -> None:
    """By name, and without the password; a service doesn't start with it."""
    with pytest.raises(ConfigError, match=reason) as refused:
        secured(dsn, sslmode=sslmode, ca=ca)
    assert "hunter2" not in str(refused.value)
    if sslmode != "verify" and (sslmode or ca):
        with pytest.raises(ConfigError, match=reason):
            ServiceSettings.read({"DATABASE_URL": dsn, "DATABASE_SSLMODE": sslmode, "DATABASE_CA": ca})


def test_every_driver_reads_the_same_path(tmp_path: Path) -> None:
    """A space is %20 in the URL: libpq, which the WAL relay uses, takes a plus sign for itself."""
    ca = tmp_path / "it's a folder+more" / "ca.pem"
    ca.parent.mkdir()
    ca.touch()
    dsn = secured("postgresql://shop@db/orders", ca=str(ca))

    assert conninfo_to_dict(dsn)["sslrootcert"] == str(ca)
    assert parse_qs(urlsplit(dsn).query)["sslrootcert"] == [str(ca)]
