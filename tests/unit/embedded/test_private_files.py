from __future__ import annotations

import os
import re
import stat

import pytest

from defectoscope.embedded.private_files import private_directory, read_or_create_secret, write_private


@pytest.fixture(autouse=True)
def generous_umask():
    """What a careless environment gives: new files open to everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_private_file_is_readable_by_its_owner_only(tmp_path):
    write_private(tmp_path / "file", "content")

    assert mode(tmp_path / "file") == 0o600
    assert (tmp_path / "file").read_text() == "content"


def test_a_file_that_was_open_to_others_is_closed_when_rewritten(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "file").chmod(0o666)

    write_private(tmp_path / "file", "new")

    assert mode(tmp_path / "file") == 0o600
    assert (tmp_path / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_secret_is_made_once_and_then_kept(tmp_path):
    first = read_or_create_secret(tmp_path / "secrets" / "password")

    second = read_or_create_secret(tmp_path / "secrets" / "password")

    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", first)
    assert second == first
    assert mode(tmp_path / "secrets" / "password") == 0o600
    assert mode(tmp_path / "secrets") == 0o700


def test_two_secrets_differ(tmp_path):
    one = read_or_create_secret(tmp_path / "one")

    assert read_or_create_secret(tmp_path / "two") != one


def test_a_directory_that_exists_keeps_its_mode(tmp_path):
    (tmp_path / "made").mkdir(mode=0o750)

    private_directory(tmp_path / "made")

    assert mode(tmp_path / "made") == 0o750
