"""The embedded PostgreSQL: its own account, its own folder, names that can't break out."""

import os
import tempfile
from pathlib import Path

import pytest

from shop.local import account, postgres
from shop.local.account import Account


def test_names_are_checked(postgres_cluster: postgres.Cluster) -> None:
    """A database's name is a plain word before it gets into SQL."""
    for name in ("a b", "a;drop", "A", "", "a'b"):
        with pytest.raises(postgres.PostgresError, match="can't be a database's name"):
            postgres_cluster.create_databases({name: "secret"})


def test_creating_again_sets_the_password_anew(postgres_cluster: postgres.Cluster) -> None:
    """A database that exists is kept."""
    postgres_cluster.create_databases({"twice": "it's"})
    postgres_cluster.run_sql("CREATE TABLE kept ()", "twice")
    postgres_cluster.create_databases({"twice": "other"})
    try:
        assert postgres_cluster.run_sql("SELECT count(*) FROM kept", "twice") == "0"
    finally:
        postgres_cluster.drop_databases(["twice"])


def test_a_refusal_is_in_postgresqls_words(postgres_cluster: postgres.Cluster) -> None:
    """Who reads the message knows what was wrong."""
    with pytest.raises(postgres.PostgresError, match='relation "nowhere" does not exist'):
        postgres_cluster.run_sql("SELECT * FROM nowhere")


def test_passwords_do_not_show(postgres_cluster: postgres.Cluster) -> None:
    """A repr may end in a log."""
    assert postgres_cluster.password not in repr(postgres_cluster)


def test_a_private_folder_is_seen(tmp_path: Path) -> None:
    """An account without rights can't walk through a folder that is closed to others."""
    stranger = Account(65534, 65534)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    assert not stranger.may_enter(closed)
    assert stranger.may_enter(Path("/"))
    assert Account(os.getuid(), os.getgid()).may_enter(closed)


def test_behind_a_private_folder_data_moves_to_a_temporary_one(tmp_path: Path) -> None:
    """A clone under a private home folder works for root too; the same folder gives the same place."""
    wanted = tmp_path / "postgres"
    tmp_path.chmod(0o700)
    stranger = Account(65534, 65534)
    base = account.reachable_base(wanted, stranger)
    try:
        assert base.parent == Path(tempfile.gettempdir())
        assert stranger.may_enter(base)
        assert account.reachable_base(wanted, stranger) == base
        assert account.reachable_base(wanted, None) == wanted
        (tmp_path / "bin").mkdir()
        assert stranger.may_enter(account.reachable_copy(tmp_path / "bin", base, stranger).parent)
    finally:
        for entry in base.iterdir():
            entry.rmdir()
        base.rmdir()
