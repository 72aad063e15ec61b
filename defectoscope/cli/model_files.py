"""`defectoscope models export|bundle`: take a model version out, as a file or as a folder that runs by itself."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from defectoscope.cli.model_ledger import Number
from defectoscope.cli.output import answer, format_bytes, note, print_json, say
from defectoscope.cli.session import JsonOption, open_client
from defectoscope.cli.trainer_process import convert_to_plain
from defectoscope.errors.api import InvalidRequest

#: The name that the notebook gave its file.
_PLAIN_FILE_NAME = "deeplabv3_plus_model.onnx"

Precision = Literal["fp32", "fp16", "int8"]
Variant = Annotated[Precision, typer.Option(help="Which of its files.")]


def export(
    number: Number,
    form: Annotated[
        Literal["served", "plain"],
        typer.Option("--format", help="served: the file as workers run it; plain: as a notebook exports it."),
    ] = "served",
    variant: Variant = "fp32",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File to write, or a directory; by default a file in this directory."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model version to a file.

    A served file takes uint8 images and carries its contract. A plain one, called deeplabv3_plus_model.onnx, takes
    float32 (N, 3, H, W) images normalised as ImageNet and gives logits of two channels; it is proven equal before it is
    kept, and that needs the trainer application on this machine.
    """
    if form == "plain" and variant != "fp32":
        raise typer.BadParameter("only the fp32 file can be exported as plain", param_hint="'--variant'")
    name = _PLAIN_FILE_NAME if form == "plain" else f"model-{number}-{variant}.onnx"
    target = _target(out, name)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        served = Path(scratch) / "served.onnx"
        with open_client() as client:
            file = client.models.download(number, variant, served)
        proof: dict[str, Any] | None = None
        written = served
        if form == "plain":
            note("Converting and proving; this takes a moment.")
            written = Path(scratch) / name
            proof = json.loads(convert_to_plain([str(served), str(written)]))["proof"]
        size_bytes = written.stat().st_size
        _move(written, target)
    if as_json:
        print_json(
            {"file": str(target), "format": form, "variant": variant, "size_bytes": size_bytes}
            | ({"sha256": file["sha256"]} if proof is None else {"proof": proof})
        )
        return
    say(f"Wrote {target} ({format_bytes(size_bytes)}).")


def bundle(
    number: Number,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.zip", help="File to write, or a directory; by default nornickel_dockerfile.zip, here."
        ),
    ] = None,
    variant: Variant = "fp32",
    as_json: JsonOption = False,
) -> None:
    """Write a zip that predicts without Defectoscope: model, predict script, pinned requirements, Dockerfile, README.

    It runs offline on onnxruntime, numpy and Pillow alone.
    """
    # Here and not above: `--help` must not wait for numpy.
    from defectoscope.registry.bundle import BUNDLE_FILE_NAME, BundleFacts, write_bundle
    from defectoscope.segmentation import ModelContract

    target = _target(out, BUNDLE_FILE_NAME)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-") as scratch:
        served = Path(scratch) / "served.onnx"
        with open_client() as client:
            model = client.models.get(number)
            client.models.download(number, variant, served)
        [chosen] = [entry for entry in model["variants"] if entry["precision"] == variant]
        facts = BundleFacts(
            precision=variant,
            scores={"validation": model["validated_on"], **(model["validation"] or {})},
            operating_point=model["operating_point"] or {},
            parity=chosen["parity"],
        )
        archive = write_bundle(
            Path(scratch) / BUNDLE_FILE_NAME,
            model_path=served,
            contract=ModelContract.from_metadata(model["contract"]),
            facts=facts,
        )
        size_bytes = archive.stat().st_size
        _move(archive, target)
    written = {"file": str(target), "variant": variant, "size_bytes": size_bytes}
    answer(written, f"Wrote {target} ({format_bytes(size_bytes)}).", as_json=as_json)


def _target(out: Path | None, name: str) -> Path:
    """Return the file to write, in a directory that is there."""
    target = Path(name) if out is None else out / name if out.is_dir() else out
    if not target.parent.is_dir():
        raise InvalidRequest(f"There is no directory {target.parent}.", path=str(target.parent))
    return target


def _move(written: Path, target: Path) -> None:
    """Give a whole file its place; scratch lies in the same directory, so that this is a rename."""
    try:
        written.replace(target)
    except OSError as exc:
        raise InvalidRequest(f"{target} cannot be written: {exc.strerror}.") from exc
