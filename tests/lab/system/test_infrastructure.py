"""What a system stands on, before any of it is started."""

from pathlib import Path

import pytest
from rich.console import Console

from backstay.dev import apache
from backstay.dev.screen import Screen
from lab.system import infrastructure


async def test_apache_kafka_without_java_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to install and what to do without it; Maven isn't needed where the jars are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BACKSTAY_CACHE", str(tmp_path))
    with pytest.raises(
        apache.KafkaError, match=r"not found in PATH: java, mvn\. Install them, or leave out KAFKA=apache"
    ):
        await infrastructure._fetch_kafka(Screen(Console(quiet=True)))

    (tmp_path / f"kafka-{apache.VERSION}" / "libs").mkdir(parents=True)
    assert apache.missing_programs() == ["java"]
