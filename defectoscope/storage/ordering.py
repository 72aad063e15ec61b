"""Puts the listing of an S3 server into ascending order of keys, in flat memory, whatever order the server walks in.

AWS lists by bytes: `a-b` before `a/x`, because `-` sorts before `/`. SeaweedFS walks folder by folder: `a/x` before
`a-b`. Here a folder is held back until every sibling that sorts before `a/` has been given: a small folder is kept in
memory, a large one is skipped and listed when its turn comes, which costs a few requests for each large folder and
none for the others. It refuses to sort everything at the end: buckets have millions of keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Protocol

from defectoscope.storage.contract import ObjectInfo

# Sorts after every name; a server is asked to go on after `folder/` + this to skip the rest of a folder.
LAST_NAME = "\U0010ffff"


class ReadFolder(Protocol):
    """A server's own way to list."""

    def __call__(self, folder: str, *, offset: str | None) -> Iterator[ObjectInfo]:
        """Give all objects below a folder (empty, or ending with `/`) that come after a key in the server's order."""
        ...


class KeyOrder:
    """Lists in key order on top of a server that keeps folders together, by bytes or by path segments.

    Args:
        read_folder: The server's own listing.
        held_limit: The largest folder, in objects at any depth, that is held in memory rather than listed again.
    """

    def __init__(self, read_folder: ReadFolder, *, held_limit: int = 1000) -> None:
        self._read_folder = read_folder
        self._held_limit = held_limit

    def walk(self, folder: str, *, after: str | None) -> Iterator[ObjectInfo]:
        """Give the objects below a folder whose keys are greater than `after`, in ascending order of keys.

        Args:
            folder: Empty, or ending with `/`.
            after: Any text; None for all.
        """
        if after is not None and after < folder:
            after = None
        if after is not None and not after.startswith(folder):
            return
        held, offset = self._resume(folder, after)
        reading = True
        while reading:
            reading = False
            entries = groupby(self._read_folder(folder, offset=offset), key=lambda info: _entry(info.key, folder))
            for entry, members in entries:
                yield from _release(held, before=entry)
                if not entry.endswith("/"):
                    yield from (info for info in members if after is None or info.key > after)
                    continue
                first_members = list(islice(members, self._held_limit + 1))
                if len(first_members) > self._held_limit:
                    held[entry] = self.walk(entry, after=after)
                    offset = entry + LAST_NAME
                    reading = True
                    break
                kept = (info for info in first_members if after is None or info.key > after)
                held[entry] = iter(sorted(kept, key=lambda info: info.key))
        yield from _release(held, before=None)

    def _resume(self, folder: str, after: str | None) -> tuple[dict[str, Iterator[ObjectInfo]], str | None]:
        """Find where to read on after a key.

        A server that walks folders first has already passed some that still lie ahead in key order: when going on
        after `lot-1.png`, these are `lot/` and `lot-1/`. They are held from the start and listed when their turn comes.

        Returns:
            The held folders and the key after which the server's own listing begins.
        """
        if after is None:
            return {}, None
        name, slash, _ = after.removeprefix(folder).partition("/")
        if name in {"", ".", ".."}:
            return {}, None
        passed = [name[:end] for end in range(1, len(name)) if name[end] < "/"]
        if not slash:
            # SeaweedFS, asked to go on after `lot`, also skips the folder `lot/`.
            passed.append(name)
        held = {
            f"{folder}{start}/": self.walk(f"{folder}{start}/", after=None)
            for start in passed
            if start not in {".", ".."}
        }
        if not slash:
            return held, folder + name
        held[f"{folder}{name}/"] = self.walk(f"{folder}{name}/", after=after)
        return held, f"{folder}{name}/{LAST_NAME}"


def _entry(key: str, folder: str) -> str:
    """Return the part of a key that names a direct child of the folder: an object, or a folder ending with `/`."""
    name, slash, _ = key.removeprefix(folder).partition("/")
    return folder + name + slash


def _release(held: dict[str, Iterator[ObjectInfo]], *, before: str | None) -> Iterator[ObjectInfo]:
    """Give and forget the held folders that sort before a key, all of them for None.

    A folder equal to the key is forgotten without being given: the server lists by bytes and gives it itself.
    """
    for folder in sorted(held):
        if before is None or folder < before:
            yield from held.pop(folder)
    if before is not None:
        held.pop(before, None)
