"""Files that only their owner may read: passwords, keys and the configuration that repeats them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_SECRET_BYTES = 24


def private_directory(path: Path) -> Path:
    """Create a directory with mode 0700, parents included; an existing one keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 so that a reader, or a crash, never finds half of it."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.new")
    # A file left by a crash could have been made readable since; a new one cannot.
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_or_create_secret(path: Path) -> str:
    """Return the secret stored in a file of mode 0600; on the first call make one of letters, digits, - and _."""
    if not path.exists():
        private_directory(path.parent)
        write_private(path, secrets.token_urlsafe(_SECRET_BYTES))
    return path.read_text(encoding="utf-8").strip()
