"""Uploads local files for a command, with progress and a sentence at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from defectoscope.cli.output import format_bytes, note, progress

if TYPE_CHECKING:
    from defectoscope.client import Client, LocalFile


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a local file is in storage."""

    uri: str
    sha256: str


def upload_paths(client: Client, paths: Iterable[Path]) -> dict[Path, StoredFile]:
    """Store files and return what each is there. What is stored already is not sent.

    Raises:
        DefectoscopeError: as `read_local_files` and `Uploader.upload` say.
    """
    from defectoscope.client import Uploader, read_local_files

    wanted = list(dict.fromkeys(paths))
    with progress("Reading", len(wanted)) as bar:
        lock = Lock()

        def on_read(_path: Path) -> None:
            with lock:
                bar.advance()

        files = read_local_files(wanted, on_read=on_read)
    contents = {file.sha256: file for file in files}
    tally = _Tally()
    with progress("Uploading", sum(file.size_bytes for file in contents.values()), unit="bytes") as bar:

        def on_bytes(count: int) -> None:
            with tally.lock:
                bar.advance(count)

        def on_stored(file: LocalFile, was_there: bool) -> None:
            with tally.lock:
                tally.add(file, was_there=was_there)
                if was_there:
                    bar.advance(file.size_bytes)

        uris = Uploader(client, on_bytes=on_bytes, on_stored=on_stored).upload(files)
    note(tally.sentence())
    return {file.path: StoredFile(uris[file.sha256], file.sha256) for file in files}


class _Tally:
    """Counts what was sent and what was there already."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._sent_count = 0
        self._sent_bytes = 0
        self._there_count = 0

    def add(self, file: LocalFile, *, was_there: bool) -> None:
        if was_there:
            self._there_count += 1
        else:
            self._sent_count += 1
            self._sent_bytes += file.size_bytes

    def sentence(self) -> str:
        files = "file" if self._sent_count == 1 else "files"
        sent = f"Uploaded {self._sent_count} {files} ({format_bytes(self._sent_bytes)})"
        if not self._there_count:
            return f"{sent}."
        return f"{sent}; {self._there_count} {'was' if self._there_count == 1 else 'were'} stored already."
