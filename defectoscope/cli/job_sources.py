"""Turns what was named on the command line into the source of a job: finds files, uploads them, reads lists of keys."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from posixpath import commonpath
from typing import TYPE_CHECKING

import typer

from defectoscope.cli.local_files import Found, find_in_folder, name_files
from defectoscope.cli.output import note
from defectoscope.cli.uploading import upload_paths
from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.jobs import NoImagesFound
from defectoscope.errors.storage import InvalidStorageUri

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import JobSource, SourceImage

_S3 = "s3://"
_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?")


def make_source(
    client: Client, sources: Sequence[str], *, keys: Path | None, manifest: str | None, labels: str | None
) -> JobSource:
    """Return the source of a job, after uploading whatever lies on this machine.

    Args:
        client: used to upload.
        sources: a folder, a zip, files, or one ``s3://bucket/prefix``.
        keys: a file of addresses instead; ``-`` is standard input.
        manifest: a CSV file of addresses instead, here or in object storage, of any length.
        labels: a folder, or ``s3://bucket/prefix`` for images in object storage.

    Raises:
        typer.BadParameter: the combination makes no sense.
        NoImagesFound: there is no image.
        InvalidRequest: something cannot be read.
    """
    if manifest is not None:
        if sources or labels or keys is not None:
            raise typer.BadParameter("--manifest names images and labels itself; leave SOURCE, --keys and --labels out")
        return _manifest(client, manifest)
    if keys is not None:
        if sources or labels:
            raise typer.BadParameter("--keys names images and labels itself; leave SOURCE and --labels out")
        return {"kind": "images", "images": read_keys(keys)}
    if not sources:
        raise typer.BadParameter(
            "name a SOURCE: a directory, a .zip, image files or s3://bucket/prefix; or use --keys or --manifest"
        )
    if any(source.startswith(_S3) for source in sources):
        return _stored(sources, labels=labels)
    return _local(client, sources, labels=labels)


def _local(client: Client, sources: Sequence[str], *, labels: str | None) -> JobSource:
    if labels is not None and labels.startswith(_S3):
        raise typer.BadParameter("labels in object storage go with images in object storage")
    labels_root = Path(labels) if labels is not None else None
    paths = [Path(source) for source in sources]
    if len(paths) == 1 and paths[0].is_dir():
        return _uploaded(client, find_in_folder(paths[0], labels_root=labels_root))
    if any(path.suffix.lower() == ".zip" for path in paths):
        return _archive(client, paths, labels=labels)
    if any(path.is_dir() for path in paths):
        raise typer.BadParameter("name one directory, or files")
    if len(paths) == 1 and not paths[0].exists():
        raise InvalidRequest(f"There is no file or directory {paths[0]}.", path=str(paths[0]))
    return _uploaded(client, name_files(paths, labels_root=labels_root))


def read_keys(file: Path) -> list[SourceImage]:
    """Read addresses, one a line; a label's address may follow after a tab. Empty lines count for nothing.

    Raises:
        InvalidRequest: the file cannot be read, or a line holds something else; the sentence names the line.
        NoImagesFound: there is no address.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidRequest(f"{file} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{file} is no text in UTF-8.") from exc
    pairs: list[tuple[str, str | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        uri, _, label_uri = (part.strip() for part in line.partition("\t"))
        if not uri and not label_uri:
            continue
        if not uri.startswith(_S3) or (label_uri and not label_uri.startswith(_S3)):
            raise InvalidRequest(f"Line {number} of {file} does not begin with s3://.", line=number)
        pairs.append((_check_uri(uri), _check_uri(label_uri) if label_uri else None))
    if not pairs:
        raise NoImagesFound(f"There is no address in {file}.")
    keys = [uri.removeprefix(_S3) for uri, _ in pairs]
    shared = commonpath([key.rpartition("/")[0] or key for key in keys])
    return [
        {"name": key.removeprefix(shared).lstrip("/") or key, "uri": uri, "label_uri": label_uri}
        for key, (uri, label_uri) in zip(keys, pairs, strict=True)
    ]


def _stored(sources: Sequence[str], *, labels: str | None) -> JobSource:
    if len(sources) > 1:
        raise typer.BadParameter("name one s3:// prefix, or list the images with --keys")
    if labels is not None and not labels.startswith(_S3):
        raise typer.BadParameter("images in object storage need labels in object storage: --labels s3://bucket/prefix")
    if sources[0].lower().endswith(".zip"):
        return {"kind": "archive", "uri": _check_uri(sources[0])}
    return {"kind": "prefix", "uri": _check_uri(sources[0]), "labels_uri": labels and _check_uri(labels)}


def _check_uri(text: str) -> str:
    """Return an address that reads as one. The server asks again, in words for programs."""
    if not _URI.fullmatch(text):
        raise InvalidStorageUri(
            f"{text} is not of the form s3://bucket/prefix, with a bucket of 3 to 63 lower-case letters, digits, dots "
            "or hyphens.",
            uri=text,
        )
    return text


def _archive(client: Client, paths: Sequence[Path], *, labels: str | None) -> JobSource:
    if len(paths) > 1:
        raise typer.BadParameter("a .zip is submitted alone")
    if labels is not None:
        raise typer.BadParameter("the labels of a .zip lie in it, in labels/ beside images/")
    return {"kind": "archive", "uri": upload_paths(client, paths)[paths[0]].uri}


def _manifest(client: Client, manifest: str) -> JobSource:
    if manifest.startswith(_S3):
        return {"kind": "manifest", "uri": _check_uri(manifest)}
    path = Path(manifest)
    return {"kind": "manifest", "uri": upload_paths(client, [path])[path].uri}


def _uploaded(client: Client, found: Found) -> JobSource:
    note(describe_found(found))
    stored = upload_paths(
        client,
        [path for image in found.images for path in (image.path, image.label_path) if path is not None],
    )
    return {
        "kind": "images",
        "images": [
            {
                "name": image.name,
                "uri": stored[image.path].uri,
                "label_uri": stored[image.label_path].uri if image.label_path else None,
            }
            for image in found.images
        ],
    }


def describe_found(found: Found) -> str:
    """Return a sentence about what was found, and one each about what was left out."""
    count = len(found.images)
    sentences = [f"Found {count} {'image' if count == 1 else 'images'}, {found.labelled_count} with labels."]
    if found.lone_labels:
        few = ", ".join(found.lone_labels[:3])
        sentences.append(f"Left out {_many(len(found.lone_labels), 'label')} without an image ({few}).")
    if found.ignored_count:
        sentences.append(f"Ignored {_many(found.ignored_count, 'file')} that {_are(found.ignored_count)} no images.")
    return " ".join(sentences)


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
