"""Makes the directory of an export, which appears only when it is whole, and names the files in it.

Names of a dataset come from whoever made it. None of them leaves the directory, hides, or overwrites another, also
where a file system does not tell upper from lower case.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path, PurePosixPath

from defectoscope.dataset.formats.contract import RevisionPicture
from defectoscope.dataset.formats.pictures import bare_parts
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.datasets import ExportDirectoryNotEmpty
from defectoscope.layout import IMAGE_EXTENSIONS

#: What some file system refuses in a name, and what would make a path of it.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')
#: File systems allow 255 bytes; a hash and an extension join later.
_MOST_LETTERS = 50
_EXTENSIONS = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"II": ".tif", b"MM": ".tif", b"RIFF": ".webp", b"BM": ".bmp"}


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Give a hidden directory to fill; what is in it becomes the content of ``out`` when the block ends well.

    When the block does not end well, nothing is left.

    Raises:
        ExportDirectoryNotEmpty: there is something at ``out``.
        InvalidRequest: it cannot be written.
    """
    was_there = out.is_dir()
    if (was_there and any(out.iterdir())) or (out.exists() and not was_there):
        raise ExportDirectoryNotEmpty(f"{out} holds files already; choose another directory or empty it.")
    # Inside, so that it is on the same file system, also where the directory is a mounted volume.
    partial = out / f".{secrets.token_hex(8)}"
    try:
        partial.mkdir(parents=True)
        yield partial
        for path in sorted(partial.iterdir()):
            path.rename(out / path.name)
    except OSError as exc:
        raise InvalidRequest(f"{out} cannot be written: {exc.strerror or exc}.") from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not was_there and out.is_dir() and not any(out.iterdir()):
            out.rmdir()


class FileNames:
    """Names the files of an export, each with a stem of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, picture: RevisionPicture) -> PurePosixPath:
        """Return where an image goes, relative to the folder of images: its own path as far as it is usable."""
        parts = [part for part in bare_parts(picture.name.replace("\\", "/")) if part not in {"/", ".."}]
        *folders, name = [_tidy(part) for part in parts] or ["_"]
        path = PurePosixPath(name)
        if path.suffix.lower() in IMAGE_EXTENSIONS:
            stem, extension = path.stem, path.suffix
        else:
            known = (known for start, known in _EXTENSIONS.items() if picture.image.startswith(start))
            stem, extension = name, next(known, ".png")
        tried = folder = PurePosixPath(*(folder[:_MOST_LETTERS] for folder in folders))
        for ending in chain(["", f"-{picture.image_sha256[:8]}"], (f"-{number}" for number in count(2))):
            tried = folder / (stem[:_MOST_LETTERS] + ending)
            if str(tried).casefold() not in self._taken:
                break
        self._taken.add(str(tried).casefold())
        return tried.with_name(tried.name + extension)


def _tidy(part: str) -> str:
    tidy = _UNSAFE.sub("_", part).rstrip(". ")
    # A file with a leading dot is hidden, and an import does not see it.
    return "_" + tidy[1:] if tidy.startswith(".") else tidy or "_"
