"""Signing keys: made once, closed to others, rotated, never replaced when damaged."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from token_service.keys import MAX_KEYS, KeyFileError, SigningKeys, thumbprint

ROOT = Path(__file__).resolve().parents[2]


def test_the_same_keys_come_back(tmp_path):
    first = SigningKeys.load_or_create(tmp_path)
    again = SigningKeys.load_or_create(tmp_path)
    assert again.signing.kid == first.signing.kid
    signature = again.signing.private.sign(b"message")
    first.verifying(first.signing.kid).verify(signature, b"message")
    with pytest.raises(InvalidSignature):
        first.verifying(first.signing.kid).verify(signature, b"another")


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_only_the_servers_user_can_read_them(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)
    path = SigningKeys.load_or_create(shared).path
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert shared.stat().st_mode & 0o777 == 0o755
    made = SigningKeys.load_or_create(tmp_path / "new" / "data").path
    assert made.parent.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_file_open_to_others_is_closed_with_a_warning(tmp_path, caplog):
    path = SigningKeys.load_or_create(tmp_path).path
    path.chmod(0o644)
    path.parent.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        SigningKeys.load_or_create(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert str(path) in caplog.text


def test_processes_that_start_at_once_agree_on_one_key(tmp_path):
    program = "import sys; from pathlib import Path; from token_service.keys import SigningKeys; sys.stdin.readline();"
    program += "print(SigningKeys.load_or_create(Path(sys.argv[1])).signing.kid)"
    command = [sys.executable, "-c", program, str(tmp_path / "data")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    workers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    try:
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        kids = {worker.communicate(timeout=30)[0] for worker in workers}
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert kids == {SigningKeys.load_or_create(tmp_path / "data").signing.kid + "\n"}
    assert {file.name for file in (tmp_path / "data" / "keys").iterdir()} == {"signing.json", "signing.lock"}


def test_after_a_rotation_the_new_key_signs_and_the_old_one_verifies(tmp_path):
    keys = SigningKeys.load_or_create(tmp_path)
    old = keys.signing
    new = keys.rotate()
    assert keys.signing.kid == new.kid != old.kid
    keys.verifying(old.kid).verify(old.private.sign(b"m"), b"m")
    again = SigningKeys.load_or_create(tmp_path)
    assert again.signing.kid == new.kid
    assert again.verifying(old.kid) is not None


def test_a_rotation_by_another_process_is_noticed(tmp_path):
    server, command_line = SigningKeys.load_or_create(tmp_path), SigningKeys.load_or_create(tmp_path)
    new = command_line.rotate()
    assert server.verifying("nobody") is None
    assert server.verifying(new.kid) is not None
    assert server.signing.kid == new.kid
    # Both keep what the other made.
    server.rotate()
    command_line.rotate()
    assert len(SigningKeys.load_or_create(tmp_path).jwks()["keys"]) == 4


def test_a_file_damaged_while_the_server_runs_leaves_it_its_keys(tmp_path, caplog):
    keys = SigningKeys.load_or_create(tmp_path)
    kid = keys.signing.kid
    keys.path.write_text("{")
    assert keys.verifying("nobody") is None
    assert keys.verifying(kid) is not None
    assert str(keys.path) in caplog.text


def test_keys_are_bounded_and_the_oldest_go(tmp_path):
    keys = SigningKeys.load_or_create(tmp_path)
    first = keys.signing.kid
    kids = [keys.rotate().kid for _ in range(MAX_KEYS)]
    assert keys.verifying(first) is None
    assert [entry["kid"] for entry in keys.jwks()["keys"]] == kids


def test_the_public_set_holds_no_secret_and_is_enough_to_verify(tmp_path):
    keys = SigningKeys.load_or_create(tmp_path)
    (entry,) = keys.jwks()["keys"]
    assert set(entry) == {"kty", "crv", "use", "alg", "kid", "x"}
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(entry["x"] + "="))
    public.verify(keys.signing.private.sign(b"m"), b"m")


def test_a_key_id_is_the_rfc_7638_thumbprint():
    # The example of RFC 8037, appendix A.3.
    x = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert thumbprint(Ed25519PublicKey.from_public_bytes(x)) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def swap_public(document: dict) -> None:
    document["keys"][0]["x"] = "A" * 43


def short_secret(document: dict) -> None:
    document["keys"][0]["d"] = "AAAA"


def other_curve(document: dict) -> None:
    document["keys"][0]["crv"] = "X25519"


def no_time(document: dict) -> None:
    del document["keys"][0]["created_at"]


def no_keys(document: dict) -> None:
    document["keys"] = []


def odd_secret(document: dict) -> None:
    document["keys"][0]["d"] = "é!"


@pytest.mark.parametrize("damage", [swap_public, short_secret, other_curve, no_time, no_keys, odd_secret])
def test_a_damaged_entry_is_an_error_that_names_the_file_and_no_secret(tmp_path, damage):
    path = SigningKeys.load_or_create(tmp_path).path
    document = json.loads(path.read_text())
    secret = document["keys"][0]["d"]
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(KeyFileError) as caught:
        SigningKeys.load_or_create(tmp_path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"{", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [1]}', b"[" * 70_000]
)
def test_a_file_that_is_no_key_file_is_left_as_it_is(tmp_path, content):
    path = SigningKeys.load_or_create(tmp_path).path
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=r"signing\.json"):
        SigningKeys.load_or_create(tmp_path)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_the_same_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError, match="cannot be made"):
        SigningKeys.load_or_create(tmp_path / "file")
