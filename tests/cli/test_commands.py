"""What the commands say, without torch and without a server."""

import json

import pytest

from app.cli.present import show_architectures, shown_setting
from app.settings import Settings
from tests.cli.running import recast


def test_help_names_every_command():
    told = recast("--help")
    assert told.returncode == 0
    for command in (
        "serve",
        "api",
        "worker",
        "convert",
        "verify",
        "architectures",
        "templates",
        "config",
        "doctor",
        "claim-store",
    ):
        assert command in told.stdout


def test_config_prints_every_setting_and_no_secret():
    secret = {"RECAST_DATABASE_URL": "postgresql://me:hunter2@host/db", "RECAST_PORT": "8123"}
    table = recast("config", **secret)
    assert table.returncode == 0, table.stderr
    for name in Settings.model_fields:
        assert f"RECAST_{name.upper()}" in table.stdout
    assert "8123" in table.stdout
    document = recast("config", "--json", **secret)
    assert json.loads(document.stdout)["port"] == 8123
    assert "hunter2" not in table.stdout + document.stdout


def test_a_secret_setting_is_masked_and_an_unset_one_says_so():
    settings = Settings(database_url="postgresql://me:hunter2@host/db")
    assert shown_setting(settings.database_url) == "**********"
    assert shown_setting(settings.store_url) == "unset"


def test_settings_that_make_no_sense_are_refused_in_words():
    told = recast("config", RECAST_PORT="70000")
    assert told.returncode == 2
    assert "port" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("no-such-file.pth", "-a", "x", "-o", "out.onnx"), "no-such-file.pth"),
        ((__file__, "-a", "x", "-o", "/no/such/directory/out.onnx"), "/no/such/directory"),
        ((__file__, "-a", "x", "-o", "out.onnx", "-t", "tflite"), "torchscript"),
        ((__file__, "-a", "x", "-o", "out.onnx", "--options", "{"), "JSON"),
        ((__file__, "-a", "x", "-o", "out.onnx", "--options", "[]"), "object"),
        ((__file__, "-a", "x", "-o", "out.onnx", "--options", '{"opzet": 1}'), "opzet"),
    ],
)
def test_wrong_orders_are_refused_before_anything_runs(arguments, word):
    told = recast("convert", *arguments)
    assert told.returncode == 2
    assert word in told.stderr
    assert "Traceback" not in told.stderr


def test_a_server_that_is_not_there_is_said_to_be(tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"PK")
    told = recast("convert", weights, "-a", "x", "-o", tmp_path / "out", "--server", "http://127.0.0.1:9")
    assert told.returncode == 1
    assert "does not answer" in told.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.pth"]


@pytest.mark.parametrize("command", ["serve", "api"])
def test_nobody_listens_beyond_this_machine_unless_told_to(command, tmp_path):
    told = recast(command, "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path)
    assert told.returncode == 2
    assert "recast keys create" in told.stderr
    assert "--allow-unauthenticated" in told.stderr


def test_who_demands_keys_here_and_has_none_is_told_that(tmp_path):
    told = recast("serve", "--port", "0", "--data-dir", tmp_path, RECAST_REQUIRE_KEYS="true")
    assert told.returncode == 2
    assert "RECAST_REQUIRE_KEYS" in told.stderr
    assert "recast keys create" in told.stderr
    assert "other machines" not in told.stderr


def test_addresses_of_this_machine():
    assert all(Settings(host=host).on_loopback for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"))
    assert not any(Settings(host=host).on_loopback for host in ("0.0.0.0", "::", "192.168.1.1", "example.org", ""))
    assert not Settings(host="0.0.0.0", allow_unauthenticated=True).keys_required
    assert Settings(host="::").keys_required
    assert Settings(host="localhost", require_keys=True).keys_required


def test_what_is_no_bundle_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_bytes(b"not a zip")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        told = recast("verify", path)
        assert told.returncode == 2
        assert "Traceback" not in told.stderr


def test_help_is_cut_nowhere_at_eighty_columns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in (
        (),
        ("convert",),
        ("architectures",),
        ("keys", "create"),
        ("projects", "create"),
        ("templates", "warm"),
    ):
        shown = recast(*command, "--help").stdout
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80, command


def test_a_wrong_path_is_answered_in_one_line(tmp_path):
    order = ("-a", "torchvision/resnet18", "-o", str(tmp_path / "a.onnx"))
    for command in (("convert", str(tmp_path / "none.pth"), *order), ("convert", str(tmp_path), *order),
                    ("verify", str(tmp_path / "none.zip")),
                    ("convert", __file__, *order[:3], str(tmp_path / "nowhere" / "a.onnx"))):  # fmt: skip
        done = recast(*command)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("recast: ")
        assert done.stderr.count("\n") == 1, done.stderr


def test_a_list_that_is_piped_has_whole_names_one_a_line(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    name = "acme/" + "a-very-long-name-" * 20
    entry = {"name": name, "family": "f", "library": "l", "library_version": "1", "targets": ["onnx"]}
    show_architectures([entry, {**entry, "name": "b"}])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", name, "b"]
    assert not any(line.endswith(" ") for line in lines)
