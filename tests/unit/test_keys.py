"""API keys: digests, roles, key files, and errors that show no key."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.auth.authentication import Authenticator
from app.auth.keys import Caller, Keyring, load_keyring, new_key
from app.errors import KeyInvalid
from app.settings import Settings
from cli.main import app
from lookalike.errors import ConfigInvalid


def test_key_is_recognized_by_its_digest_alone() -> None:
    key, digest = new_key()
    ring = Keyring({"website": ("read", digest)})
    assert ring.caller(key) == Caller("website", "read")
    assert [ring.caller(other) for other in ("", digest, key[:-1], key + "x", key.upper(), "\udcff")] == [None] * 6
    assert key not in repr(vars(ring))


def test_roles_include_lower_roles() -> None:
    assert [Caller("", "admin").may(role) for role in ("read", "admin")] == [True, True]
    assert [Caller("", "write").may(role) for role in ("read", "write", "admin")] == [True, True, False]
    assert [Caller("", "read").may(role) for role in ("read", "write", "admin")] == [True, False, False]


def test_environment_keys_are_parsed() -> None:
    ring = load_keyring("read:0123456789abcdef, admin:fedcba9876543210", None)
    assert ring.caller("0123456789abcdef") == Caller("environment-1", "read")
    assert ring.caller("fedcba9876543210") == Caller("environment-2", "admin")
    assert len(load_keyring(" ", None)) == 0


@pytest.mark.parametrize(
    "listed",
    ["0123456789abcdef", "owner:0123456789abcdef", "read:short-secret", "read:", "read:schlüssel-0123456789abcdef"],
)
def test_error_of_listed_key_does_not_show_it(listed: str) -> None:
    with pytest.raises(ConfigInvalid, match="entry 2") as caught:
        load_keyring(f"read:aaaaaaaaaaaaaaaaaaaaaa {listed}", None)
    assert "0123456789abcdef" not in str(caught.value)
    assert "short-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nrole = 'owner'\nsha256 = '" + "0" * 64 + "'", "a.role"),
        ("[a]\nrole = 'read'\nsha256 = 'secret-in-plain-text'", "a.sha256"),
        ("[a]\nrole = 'read'", "a.sha256"),
        ("a = 1", "a"),
        ("[a", "not TOML"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
    ],
)
def test_invalid_key_file_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match=message) as caught:
        load_keyring("", tmp_path / "keys.toml")
    assert "secret-in-plain-text" not in str(caught.value)


def test_missing_key_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="LOOKALIKE_KEYS_FILE"):
        load_keyring("", tmp_path / "keys.toml")


def test_key_command_creates_valid_keys(tmp_path: Path) -> None:
    path, run = tmp_path / "keys.toml", CliRunner().invoke
    made = {}
    for name, role in (("website", "read"), ("ops", "admin")):
        done = run(app, ["key", name, "--role", role, "--file", str(path)])
        assert done.exit_code == 0, done.output
        made[name] = done.stdout.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(key in path.read_text() for key in made.values())
    ring = load_keyring("", path)
    assert ring.caller(made["website"]) == Caller("website", "read")
    assert ring.caller(made["ops"]) == Caller("ops", "admin")
    before = path.read_bytes()
    assert run(app, ["key", "ops", "--file", str(path)]).exit_code == 2
    path.write_bytes(before.rstrip(b"\n"))  # as an editor may leave it
    assert run(app, ["key", "third", "--file", str(path)]).exit_code == 0
    assert load_keyring("", path).names == {"website", "ops", "third"}
    before = path.read_bytes()
    assert run(app, ["key", "no blanks", "--file", str(path)]).exit_code == 2
    assert path.read_bytes() == before


def test_key_listed_twice_is_rejected(tmp_path: Path) -> None:
    key, digest = new_key()
    with pytest.raises(ConfigInvalid, match="'environment-1' is listed twice") as caught:
        load_keyring(f"admin:{key} read:{key}", None)
    assert key not in str(caught.value)
    path = tmp_path / "keys.toml"
    path.write_text(f'[website]\nrole = "read"\nsha256 = "{digest}"\n')
    with pytest.raises(ConfigInvalid, match="'website' is listed twice"):
        load_keyring(f"admin:{key}", path)


def test_key_command_keeps_permissions_and_symlink(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "keys.toml"
    real.touch()
    real.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(real, 10001, 10002)
    before = real.stat()
    link.symlink_to("real.toml")
    assert CliRunner().invoke(app, ["key", "first", "--file", str(link)]).exit_code == 0
    after = real.stat()
    assert link.is_symlink()
    assert load_keyring("", real).names == {"first"}
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_concurrent_key_commands_keep_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    command = [sys.executable, "-m", "cli.main", "key", "--file", str(path)]
    running = [subprocess.Popen([*command, f"key{i}"], stdout=subprocess.DEVNULL) for i in range(6)]
    assert [each.wait(60) for each in running] == [0] * 6
    assert load_keyring("", path).names == {f"key{i}" for i in range(6)}
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_key_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.toml"
    assert CliRunner().invoke(app, ["key", "first", "--file", str(path)]).exit_code == 0
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    done = CliRunner().invoke(app, ["key", "second", "--file", str(path)])
    assert done.exit_code == 1
    assert "No space left" in done.stderr
    assert done.stdout == ""
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_key_file_is_not_read_while_it_is_written(tmp_path: Path) -> None:
    (first, digest), (second, other) = new_key(), new_key()
    path = tmp_path / "keys.toml"
    path.write_text(f'[first]\nrole = "read"\nsha256 = "{digest}"\n')
    authenticator = Authenticator(Settings(collection=tmp_path, keys_file=path))
    path.write_text("")  # as an editor truncates it, before it writes
    authenticator.reload()
    assert authenticator.authenticate(first).name == "first"
    path.write_text(f'[second]\nrole = "read"\nsha256 = "{other}"\n')
    authenticator.reload()
    assert authenticator.authenticate(first).name == "first"
    authenticator.reload()  # nothing has changed since
    assert authenticator.authenticate(second).name == "second"
    with pytest.raises(KeyInvalid):
        authenticator.authenticate(first)
    path.write_text("")
    for _ in range(2):
        authenticator.reload()
    with pytest.raises(KeyInvalid):  # no key left is not the same as no keys
        authenticator.authenticate(second)
