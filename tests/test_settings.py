"""Settings: each is documented, read from the environment, and secrets stay secret."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from app.settings import Settings


def test_every_setting_is_documented() -> None:
    undocumented = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undocumented == []


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECAST_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RECAST_CHILDREN", "5")
    settings = Settings()
    assert (settings.data_dir, settings.children) == (tmp_path, 5)
    assert settings.objects_location == str(tmp_path / "objects")


def test_retention_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECAST_RETENTION_DAYS", "null")
    assert Settings().retention_days is None


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECAST_DATABASE_URL", "postgresql://recast:hush@db/recast")
    assert "hush" not in repr(Settings())
    assert "hush" not in Settings().model_dump_json()


def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECAST_CHILDREN", "0")
    with pytest.raises(ValidationError):
        Settings()
