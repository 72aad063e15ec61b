from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from defectoscope.embedded.account import Account, first_closed_directory, let_through, unprivileged_account

# Nobody on this machine has these numbers, so only the rights of "others" or of a changed group can help.
STRANGER = Account("stranger", 54321, 54321)


@pytest.fixture
def directory():
    """A directory that everybody can reach; those of pytest are closed to other users."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


def test_an_open_way_has_no_closed_directory(directory):
    assert first_closed_directory(directory / "cluster", account=STRANGER) is None


def test_the_outermost_closed_directory_is_named(directory):
    outer, inner = directory / "outer", directory / "outer" / "inner"
    inner.mkdir(parents=True)
    inner.chmod(0o700)
    outer.chmod(0o700)

    closed = first_closed_directory(inner / "cluster", account=STRANGER)

    assert closed == outer.resolve()


def test_the_rights_of_the_owner_are_used_for_the_owner(directory):
    directory.chmod(0o700)
    owner = Account("owner", directory.stat().st_uid, 54321)

    assert first_closed_directory(directory / "cluster", account=owner) is None


def test_a_group_may_be_shut_out_of_what_is_open_to_others(directory):
    directory.chmod(0o705)
    member = Account("member", 54321, directory.stat().st_gid)

    assert first_closed_directory(directory / "cluster", account=member) == directory.resolve()


def test_letting_an_account_through_opens_the_way_and_nothing_else(directory):
    directory.chmod(0o700)
    member = Account("member", 54321, directory.stat().st_gid)

    let_through(directory, account=member)

    assert first_closed_directory(directory / "cluster", account=member) is None
    assert stat.S_IMODE(directory.stat().st_mode) == 0o710
    assert first_closed_directory(directory / "cluster", account=STRANGER) == directory.resolve()


def test_a_directory_that_lets_the_account_through_already_is_left_alone(directory):
    before = directory.stat()

    let_through(directory, account=STRANGER)

    assert (directory.stat().st_mode, directory.stat().st_gid) == (before.st_mode, before.st_gid)


def test_an_account_is_needed_by_root_only(directory):
    account = unprivileged_account(owner_of=directory / "cluster")

    assert (account is None) == (os.geteuid() != 0)
    assert account is None or account.user_id != 0
