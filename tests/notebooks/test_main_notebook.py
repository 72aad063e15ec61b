"""The committed notebook is run as it stands, top to bottom, in a kernel of its own and away from the checkout."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import onnxruntime
import pytest
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "main.ipynb"

#: Seconds for one cell. The training takes about 30 on two busy cores, and the machine may be busier than that.
CELL_TIMEOUT_S = 480

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Executed:
    """What a run of the notebook left behind."""

    out: Path
    cells: dict[str, Any]

    @property
    def metrics(self):
        return json.loads((self.out / "metrics.json").read_text())

    def table(self, cell_id):
        """The first table that a cell shows: the cells of each row by its first one."""
        shown = [output["data"].get("text/markdown", "") for output in self.cells[cell_id].outputs if "data" in output]
        (_, _, *lines) = next(text for text in shown if text.startswith("|")).splitlines()
        rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines]
        return {name: values for name, *values in rows}


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("notebook")
    jupyter = tmp_path_factory.mktemp("jupyter")
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")}
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    )
    with pytest.MonkeyPatch.context() as patch:
        # Nothing of the person who runs the tests: neither their settings nor files left in their home.
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(jupyter / name.lower()))
            environment[name] = str(jupyter / name.lower())
        client.execute(env={**environment, "DEFECTOSCOPE_NOTEBOOK_QUICK": "1"})
    return Executed(out=directory / "notebook-output", cells={cell.id: cell for cell in notebook.cells})


def test_the_committed_file_holds_neither_outputs_nor_traces_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)

    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]

    assert len(code) > 10
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert [cell.id for cell in notebook.cells if cell.metadata or "attachments" in cell] == []
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_the_exported_model_takes_normalised_floats_and_gives_two_logits(executed):
    session = onnxruntime.InferenceSession(executed.out / "deeplabv3_plus_model.onnx")
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    images = np.random.default_rng(0).normal(size=(3, *given.shape[1:])).astype(np.float32)

    (logits,) = session.run(None, {given.name: images})

    assert (given.type, given.shape) == ("tensor(float)", ["batch", 3, 128, 128])
    assert (returned.type, returned.shape) == ("tensor(float)", ["batch", 2, 128, 128])
    assert logits.shape == (3, 2, 128, 128)
    assert np.isfinite(logits).all()


def test_the_figures_shown_are_those_of_the_training(executed):
    shown = executed.table("figures")

    validation, point = executed.metrics["validation"], executed.metrics["operating_point"]
    for name, expected in (
        ("IoU of the defect, mean of the images", validation["mean"]["iou_defect"]),
        ("IoU of the defect, all pixels pooled", validation["pooled"]["iou_defect"]),
        ("IoU of both classes, mean of the images", validation["mean"]["iou"]),
        ("threshold", point["threshold"]),
    ):
        (value,) = shown[name]
        assert 0 <= float(value) <= 1
        assert float(value) == pytest.approx(expected, abs=1e-4)
    assert shown["escapes"][0].endswith("7 images)")
    assert shown["false calls"][0].endswith("3 images)")


def test_the_training_teaches_the_network_something(executed):
    # Thirty seconds of it, on drawn images: more than that the figures of a quick run do not say.
    epochs = executed.metrics["epochs"]

    losses = [(epoch["train_loss"], epoch["val_loss"]) for epoch in epochs]

    assert np.isfinite(losses).all()
    assert losses[-1][0] < losses[0][0]


def test_every_variant_is_listed_with_its_parity_or_its_reason(executed):
    shown = executed.table("variants")

    kept = {name: values[-1] for name, values in shown.items()}

    assert list(kept) == ["fp32", "fp16", "int8"]
    assert kept["fp32"] == "yes"
    for name, variant in executed.metrics["variants"].items():
        assert kept[name] == ("yes" if variant["published"] else variant["reason"])


def test_a_picture_of_every_validation_image_is_saved(executed):
    (images, _, _) = executed.table("find-data")["validation"]

    sizes_wh = []
    for path in (executed.out / "visualisations").iterdir():
        with Image.open(path) as picture:
            picture.load()
            sizes_wh.append(picture.size)

    assert len(sizes_wh) == int(images) == 10
    # Image, label and prediction beside each other; no drawn image is higher than one and a half times its width.
    assert all(width >= 2 * height for width, height in sizes_wh)


def test_the_archive_holds_the_model_and_the_script_that_was_tried(executed):
    with zipfile.ZipFile(executed.out / "nornickel_dockerfile.zip") as archive:
        names = set(archive.namelist())
        metadata = json.loads(archive.read("metadata.json"))

    said = "".join(output.get("text", "") for output in executed.cells["predict-script"].outputs)

    assert {"model.onnx", "predict.py", "requirements.txt", "Dockerfile", "README.md"} <= names
    assert metadata["scores"] == executed.metrics["validation"]
    assert "gives the masks of the service, pixel for pixel, on 2 images" in said
