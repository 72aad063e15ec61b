"""Every kind of object that the system writes, and the statements that say which of their keys rows point at.

A statement comes in two forms: narrowed to some keys, for the collector, and whole, for a backup. Keys that do not look
as those of their kind belong to somebody else: `kind_of` knows none for them, and nobody here deletes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

_SHA = "[0-9a-f]{64}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """Rows that point at objects.

    Attributes:
        rows: table and column, as people read it.
        select: statement that gives every key pointed at, in a column ``key``.
        narrow: further condition that leaves those among ``:keys``; ``:sha256s`` are the hashes in them and ``:uris``
            their addresses.
        may_be_gone: whether a row may name an object that is not there: an address that a caller gave, or a checkpoint
            that has been replaced by the next.
    """

    rows: str
    select: str
    narrow: str
    may_be_gone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of object.

    Attributes:
        name: for people and for counts.
        prefix: of the keys.
        pattern: that a whole key has; its group ``sha256``, if it has one, is what rows are found by.
        pointers: rows that point at it.
    """

    name: str
    prefix: str
    pattern: re.Pattern[str]
    pointers: tuple[Pointer, ...]


def _plain(rows: str, *, condition: str = "true") -> Pointer:
    """Return the pointer that is a column of keys in a table small enough to be read by key."""
    table, column = rows.split(".")
    return Pointer(
        rows=rows,
        select=f"SELECT {column} AS key FROM {table} WHERE {column} IS NOT NULL AND {condition}",  # noqa: S608
        narrow=f"{column} = ANY(CAST(:keys AS text[]))",
    )


def _address(column: str, *, until: str) -> Pointer:
    """Return the pointer that is an address in our own bucket, held by images of jobs until ``until`` is known."""
    # The conditions are those of the partial indexes.
    return Pointer(
        rows=f"job_items.{column}",
        select=f"SELECT substr({column}, length(CAST(:base AS text)) + 1) AS key FROM job_items WHERE {until} IS NULL"  # noqa: S608
        f" AND {column} LIKE '%/objects/sha256/%' AND starts_with({column}, CAST(:base AS text))"
        " AND state IN ('pending', 'failed')",
        narrow=f"{column} = ANY(CAST(:uris AS text[]))",
        may_be_gone=True,
    )


_IMAGES = Pointer(
    rows="images.key",
    select="SELECT key FROM images WHERE deleted_at IS NULL",
    narrow="sha256 = ANY(CAST(:sha256s AS text[])) AND key = ANY(CAST(:keys AS text[]))",
)
_LABELS = Pointer(
    rows="labels.key",
    select="SELECT key FROM labels WHERE true",
    narrow="sha256 = ANY(CAST(:sha256s AS text[])) AND key = ANY(CAST(:keys AS text[]))",
)
_MASKS = Pointer(
    rows="results.mask_key",
    select="SELECT mask_key AS key FROM results WHERE deleted_at IS NULL",
    narrow="mask_key = ANY(CAST(:keys AS text[]))",
)
# By the image, whose hash is in the key, so that results need no index for it.
_OVERLAYS = Pointer(
    rows="results.overlay_key",
    select="SELECT results.overlay_key AS key FROM results JOIN images ON images.id = results.image_id"
    " WHERE results.deleted_at IS NULL AND results.overlay_key IS NOT NULL",
    narrow="images.sha256 = ANY(CAST(:sha256s AS text[])) AND results.overlay_key = ANY(CAST(:keys AS text[]))",
)
_SOURCES = Pointer(
    rows="jobs.source",
    select="SELECT substr(source->>'uri', length(CAST(:base AS text)) + 1) AS key FROM jobs"
    " WHERE enumerated_at IS NULL AND starts_with(source->>'uri', CAST(:base AS text) || 'objects/sha256/')",
    narrow="source->>'uri' = ANY(CAST(:uris AS text[]))",
    may_be_gone=True,
)
_CHECKPOINTS = Pointer(
    rows="training_runs.checkpoint",
    select="SELECT checkpoint->>'key' AS key FROM training_runs WHERE jsonb_typeof(checkpoint) = 'object'"
    " AND state IN ('pending', 'running')",
    narrow="checkpoint->>'key' = ANY(CAST(:keys AS text[]))",
    may_be_gone=True,
)

#: In the order of their prefixes, which is the order of a walk.
KINDS = (
    Kind(
        name="dataset manifests",
        prefix="datasets/",
        pattern=re.compile(rf"datasets/(?P<sha256>{_SHA})\.json"),
        pointers=(_plain("dataset_revisions.manifest_key"),),
    ),
    Kind(
        name="masks",
        prefix="masks/",
        pattern=re.compile(rf"masks/[0-9a-f]{{2}}/(?P<sha256>{_SHA})\.png"),
        pointers=(_MASKS,),
    ),
    Kind(
        name="model files",
        prefix="models/",
        pattern=re.compile(rf"models/(?P<sha256>{_SHA})\.(?:onnx|safetensors)"),
        pointers=(_plain("model_variants.key"), _plain("model_versions.weights_key")),
    ),
    Kind(
        name="originals and uploads",
        prefix="objects/sha256/",
        pattern=re.compile(rf"objects/sha256/[0-9a-f]{{2}}/(?P<sha256>{_SHA})"),
        pointers=(
            _IMAGES,
            _LABELS,
            _plain("model_imports.key", condition="state <> 'failed'"),
            _address("source_uri", until="image_id"),
            _address("label_uri", until="label_id"),
            _SOURCES,
        ),
    ),
    Kind(
        name="overlays",
        prefix="overlays/",
        pattern=re.compile(rf"overlays/[0-9a-f]{{2}}/(?P<sha256>{_SHA})/v\d+-[0-9a-f]{{16}}\.jpg"),
        pointers=(_OVERLAYS,),
    ),
    Kind(
        name="checkpoints and reports",
        prefix="training/",
        pattern=re.compile(r"training/\d+/(?:checkpoints/\d+-\d+\.safetensors|report-\d+\.html)"),
        pointers=(_CHECKPOINTS, _plain("training_runs.report_key")),
    ),
)


def kind_of(key: str) -> Kind | None:
    """Return the kind of an object by its key, or None when the system never wrote it."""
    return next((kind for kind in KINDS if kind.pattern.fullmatch(key)), None)


def find_pointed(session: Session, kind: Kind, keys: Sequence[str], *, bucket: str) -> set[str]:
    """Return those of some keys that rows point at now.

    Args:
        session: of a transaction.
        kind: of all the keys.
        keys: any number; one statement for each table.
        bucket: our own.
    """
    matches = [match for key in keys if (match := kind.pattern.fullmatch(key))]
    base = f"s3://{bucket}/"
    values = {
        "keys": list(keys),
        "sha256s": [match["sha256"] for match in matches] if "sha256" in kind.pattern.groupindex else [],
        "uris": [base + key for key in keys],
        "base": base,
    }
    pointed: set[str] = set()
    for pointer in kind.pointers:
        statement = text(f"{pointer.select} AND {pointer.narrow}")
        pointed.update(session.scalars(statement, {name: values[name] for name in statement.compile().params}))
    return pointed


def list_pointed(connection: Connection, *, bucket: str) -> Iterator[tuple[str, bool]]:
    """Yield every key that rows point at, once and in key order, and whether its object may be gone; in flat memory.

    Args:
        connection: of a transaction.
        bucket: our own.
    """
    selects = " UNION ALL ".join(
        f"SELECT key, {pointer.may_be_gone} AS may_be_gone FROM ({pointer.select}) AS pointed"  # noqa: S608
        for kind in KINDS
        for pointer in kind.pointers
    )
    statement = text(
        f'SELECT key, bool_and(may_be_gone) FROM ({selects}) AS pointed GROUP BY key ORDER BY key COLLATE "C"'  # noqa: S608
    )
    for key, may_be_gone in connection.execution_options(yield_per=10_000).execute(
        statement, {"base": f"s3://{bucket}/"}
    ):
        if kind_of(key) is not None:
            yield key, may_be_gone
