"""Which user runs PostgreSQL, which refuses to be run by root. Creates no account and loosens no foreign directory."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from defectoscope.errors.installation import PlatformUnsupported

_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine and its primary group."""

    name: str
    user_id: int
    group_id: int


def unprivileged_account(*, owner_of: Path) -> Account | None:
    """The account PostgreSQL has to run as.

    Args:
        owner_of: The cluster directory. If it exists already its owner is kept, so that an account created later
            (by installing a PostgreSQL package, say) does not lock us out of our own files.

    Returns:
        None when we are not root and may run it ourselves.

    Raises:
        PlatformUnsupported: We are root and the machine has no account to step down to.
    """
    if os.geteuid() != 0:
        return None
    if owner_of.exists() and (owner_id := owner_of.stat().st_uid) != 0:
        try:
            entry = pwd.getpwuid(owner_id)
        except KeyError:
            return Account(str(owner_id), owner_id, owner_of.stat().st_gid)
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise PlatformUnsupported(
        "PostgreSQL does not run as root and this machine has neither a `postgres` nor a `nobody` account; "
        "run as an ordinary user or set DEFECTOSCOPE_DATABASE__URL."
    )


def first_closed_directory(path: Path, *, account: Account) -> Path | None:
    """The outermost directory on the way to ``path`` that the account cannot enter, or None when the way is open.

    Access control lists are not looked at.
    """
    for directory in reversed(path.resolve().parents):
        facts = directory.stat()
        if facts.st_uid == account.user_id:
            needed = stat.S_IXUSR
        elif facts.st_gid == account.group_id:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not facts.st_mode & needed:
            return directory
    return None


def let_through(directory: Path, *, account: Account) -> None:
    """Let the account's group pass through a directory of ours, without letting it list the directory.

    Args:
        directory: A directory that we own. Nothing is changed when the account can pass already.
        account: Who has to get through.
    """
    if first_closed_directory(directory / "any", account=account) != directory.resolve():
        return
    os.chown(directory, -1, account.group_id)
    directory.chmod((stat.S_IMODE(directory.stat().st_mode) & ~stat.S_IRWXG) | stat.S_IXGRP)
