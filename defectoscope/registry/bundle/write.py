"""Writes a bundle: model, predict script, requirements, Dockerfile, metadata and README in one zip.

Reading images, the model contract and the names of masks are the product's own files, copied unchanged, so that a
bundle cannot come to read an image in another way. The same model and facts give the same bytes. No ONNX is looked
into here.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import IO, Any

from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation import ModelContract, ResizePolicy
from defectoscope.storage import hash_file

#: The name under which such archives are known.
BUNDLE_FILE_NAME = "nornickel_dockerfile.zip"

#: What a bundle installs, as requirements.lock pins it; a test holds the two together.
REQUIREMENTS = (
    "numpy==2.4.6 ; python_full_version < '3.12'",
    "numpy==2.5.5 ; python_full_version >= '3.12'",
    "onnxruntime==1.32.0",
    "pillow==13.0.0",
)

#: Files of the product that stand in a bundle as they are; they need numpy and Pillow and nothing else.
_PRODUCT_FILES = (
    "errors/__init__.py",
    "errors/images.py",
    "errors/models.py",
    "layout.py",
    "segmentation/arrays.py",
    "segmentation/blending.py",
    "segmentation/contract.py",
    "segmentation/decode.py",
    "segmentation/exif.py",
    "segmentation/image_file.py",
    "segmentation/placement.py",
    "segmentation/structure.py",
)
_PACKAGES = ("", "segmentation/")
_PACKAGE_DOCSTRING = '"""The parts of Defectoscope that predict.py needs, unchanged."""\n'

#: What is said of each resize policy.
_RESIZING: Mapping[ResizePolicy, str] = {
    "stretch": "images of other sizes are stretched to it, masks back",
    "letterbox": "images of other sizes are brought to it in their aspect ratio, masks back",
    "tile": "larger images are cut into overlapping tiles, and their masks blended",
}

#: The least date that a zip can hold.
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o644
_UNIX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """What is known of a model version beside its contract, for people to read; every value is JSON-ready.

    Attributes:
        precision: of the file, such as "fp32".
        scores: on validation images, by name, nested where there are several kinds.
        operating_point: how threshold and minimum area were chosen, and the error rates there.
        parity: how far the file is from the network it came from.
    """

    precision: str = "fp32"
    scores: Mapping[str, Any] = field(default_factory=dict)
    operating_point: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)


def write_bundle(
    zip_path: Path, *, model_path: Path, contract: ModelContract, facts: BundleFacts | None = None
) -> Path:
    """Write a bundle of a model version.

    Args:
        zip_path: the file to write, complete or not at all; or a directory, in which it is called `BUNDLE_FILE_NAME`.
        model_path: the ONNX file of the version, its contract inside.
        contract: that contract, with the version's number.
        facts: what else there is to say.

    Returns:
        The path of the zip.

    Raises:
        InvalidModel: the contract has no version: only what is registered is handed out.
    """
    if contract.version is None:
        raise InvalidModel("A bundle is made of a registered model version; this model has no number.")
    if zip_path.is_dir():
        zip_path /= BUNDLE_FILE_NAME
    facts = facts or BundleFacts()
    metadata = _metadata(contract, facts, sha256=hash_file(model_path))
    texts = dict(_texts(contract, facts, metadata))
    descriptor, partial = tempfile.mkstemp(dir=zip_path.parent, suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_zip(file, texts, model_path=model_path)
        Path(partial).chmod(_MODE)
        Path(partial).replace(zip_path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return zip_path


def _write_zip(file: IO[bytes], texts: Mapping[str, bytes], *, model_path: Path) -> None:
    # Stored and not deflated: weights hardly shrink, and the bytes would depend on the version of zlib.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted([*texts, "model.onnx"]):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = _MODE << 16
            entry.create_system = _UNIX
            if name in texts:
                archive.writestr(entry, texts[name])
            else:
                entry.file_size = model_path.stat().st_size
                with model_path.open("rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, 2**20)


def _texts(contract: ModelContract, facts: BundleFacts, metadata: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield everything but the model by its name in the zip."""
    contents = resources.files(__package__) / "contents"
    product = resources.files("defectoscope")
    width, height = contract.input_size_wh
    words = {
        **{name: _cell(value) for name, value in metadata.items()},
        "dataset": _cell(contract.dataset_revision or "unknown"),
        "width": str(width),
        "height": str(height),
        "resizing": _RESIZING[contract.resize_policy],
        "scores": _tabulate(facts.scores),
    }
    for name in ("Dockerfile", "README.md"):
        yield name, Template((contents / name).read_text(encoding="utf-8")).substitute(words).encode()
    yield "predict.py", (contents / "predict.py").read_bytes()
    yield "requirements.txt", "".join(f"{line}\n" for line in REQUIREMENTS).encode()
    yield "metadata.json", (json.dumps(metadata, indent=2, ensure_ascii=False) + "\n").encode()
    for folder in _PACKAGES:
        yield f"defectoscope/{folder}__init__.py", _PACKAGE_DOCSTRING.encode()
    for path in _PRODUCT_FILES:
        yield f"defectoscope/{path}", (product / path).read_bytes()


def _metadata(contract: ModelContract, facts: BundleFacts, *, sha256: str) -> dict[str, Any]:
    return {
        "image": f"defectoscope-model:v{contract.version}",
        "entrypoint": "python predict.py",
        "version": contract.version,
        "precision": facts.precision,
        "architecture": contract.architecture,
        "encoder": contract.encoder,
        "dataset": contract.dataset_revision,
        "input_size_wh": list(contract.input_size_wh),
        "resize_policy": contract.resize_policy,
        "threshold": contract.threshold,
        "min_area_px": contract.min_area_px,
        "sha256": sha256,
        "scores": dict(facts.scores),
        "operating_point": dict(facts.operating_point),
        "parity": dict(facts.parity),
    }


def _tabulate(scores: Mapping[str, Any]) -> str:
    """Write scores as a table; nested ones by their path, such as ``pooled iou``."""
    rows = list(_flatten(scores))
    if not rows:
        return "There are no scores of this version."
    lines = [
        f"| {name} | {value:.4f} |" if isinstance(value, float) else f"| {name} | {value} |" for name, value in rows
    ]
    return "\n".join(["| On validation images | |", "|---|---|", *lines])


def _flatten(scores: Mapping[str, Any], *path: str) -> Iterator[tuple[str, Any]]:
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, *path, name)
        else:
            yield " ".join((*path, name)), value


def _cell(value: object) -> str:
    """Write a value so that it stays within its cell of a table: names of networks are free text."""
    return " ".join(str(value).split()).replace("|", "\\|")
