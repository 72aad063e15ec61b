"""The zip of a bundle: what is in it, the same bytes each time, and its pins those of the lock."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
from pathlib import Path

import pytest

from defectoscope.errors.models import InvalidModel
from defectoscope.registry.bundle import REQUIREMENTS, BundleFacts, write_bundle
from tests.models import CONTRACT, write_dark_is_defect

REPOSITORY = Path(__file__).resolve().parents[3]
CONTRACT_7 = dataclasses.replace(CONTRACT, version=7, dataset_revision="plates@3", threshold=0.35, min_area_px=12)
FACTS = BundleFacts(
    scores={"images": 40, "pooled": {"iou": 0.8125, "dice": 0.9}},
    operating_point={"chosen_for": "iou"},
    parity={"mask_iou": 1.0},
)


@pytest.fixture
def model_path(tmp_path):
    return write_dark_is_defect(tmp_path / "v7.onnx", CONTRACT_7)


@pytest.fixture
def bundle(model_path, tmp_path):
    with zipfile.ZipFile(
        write_bundle(tmp_path / "bundle.zip", model_path=model_path, contract=CONTRACT_7, facts=FACTS)
    ) as archive:
        yield archive


def test_a_bundle_holds_what_is_needed_to_run_and_to_build(bundle):
    names = bundle.namelist()

    top = [name for name in names if "/" not in name]
    assert top == ["Dockerfile", "README.md", "metadata.json", "model.onnx", "predict.py", "requirements.txt"]
    assert {name.partition("/")[0] for name in names if "/" in name} == {"defectoscope"}
    assert names == sorted(names)


def test_the_metadata_says_what_the_model_is(bundle):
    metadata = json.loads(bundle.read("metadata.json"))

    assert metadata["image"] == "defectoscope-model:v7"
    assert metadata["entrypoint"] == "python predict.py"
    assert (metadata["version"], metadata["dataset"]) == (7, "plates@3")
    assert (metadata["threshold"], metadata["min_area_px"]) == (0.35, 12)
    assert metadata["scores"] == {"images": 40, "pooled": {"iou": 0.8125, "dice": 0.9}}
    assert metadata["operating_point"] == {"chosen_for": "iou"}
    assert metadata["parity"] == {"mask_iou": 1.0}


def test_the_readme_names_version_and_scores(bundle):
    readme = bundle.read("README.md").decode()

    assert readme.startswith("# Defect segmentation, model version 7\n")
    assert "| trained on | plates@3 |" in readme
    assert "| pooled iou | 0.8125 |" in readme
    assert "$version" not in readme


def test_the_readme_says_how_images_come_to_the_models_size(tmp_path):
    contract = dataclasses.replace(CONTRACT_7, resize_policy="tile")
    model_path = write_dark_is_defect(tmp_path / "tiles.onnx", contract)

    with zipfile.ZipFile(write_bundle(tmp_path / "bundle.zip", model_path=model_path, contract=contract)) as archive:
        readme, metadata = archive.read("README.md").decode(), json.loads(archive.read("metadata.json"))

    assert "| input size | 256 x 256; larger images are cut into overlapping tiles, and their masks blended |" in readme
    assert metadata["resize_policy"] == "tile"


def test_the_dockerfile_installs_the_pins_and_runs_as_nobody(bundle):
    lines = bundle.read("Dockerfile").decode().splitlines()

    assert "USER 10001:10001" in lines
    assert lines[-1] == 'ENTRYPOINT ["python", "/srv/predict.py"]'
    assert "--tag defectoscope-model:v7 " in lines[0]


def test_the_product_s_files_are_copied_unchanged(bundle):
    copied = [name for name in bundle.namelist() if name.startswith("defectoscope/") and "__init__" not in name]

    assert len(copied) >= 7
    assert all(bundle.read(name) == (REPOSITORY / name).read_bytes() for name in copied)


def test_the_model_is_in_it_unchanged(bundle, model_path):
    assert bundle.read("model.onnx") == model_path.read_bytes()


def test_the_same_version_gives_the_same_bytes(model_path, tmp_path):
    first = write_bundle(tmp_path / "first.zip", model_path=model_path, contract=CONTRACT_7, facts=FACTS)
    second = write_bundle(tmp_path / "second.zip", model_path=model_path, contract=CONTRACT_7, facts=FACTS)

    assert first.read_bytes() == second.read_bytes()


def test_a_directory_gets_the_archive_under_its_usual_name(model_path, tmp_path):
    path = write_bundle(tmp_path, model_path=model_path, contract=CONTRACT_7)

    assert path == tmp_path / "nornickel_dockerfile.zip"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["nornickel_dockerfile.zip", "v7.onnx"]


def test_free_text_does_not_break_the_readme(model_path, tmp_path):
    contract = dataclasses.replace(CONTRACT_7, architecture="My | own\nnet", encoder="$PATH")

    path = write_bundle(tmp_path / "bundle.zip", model_path=model_path, contract=contract)

    with zipfile.ZipFile(path) as archive:
        assert r"| network | My \| own net, $PATH |" in archive.read("README.md").decode().splitlines()


def test_a_model_without_a_number_is_refused(model_path, tmp_path):
    with pytest.raises(InvalidModel, match="registered"):
        write_bundle(tmp_path / "bundle.zip", model_path=model_path, contract=CONTRACT)

    assert not (tmp_path / "bundle.zip").exists()


def test_a_missing_model_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_bundle(tmp_path / "bundle.zip", model_path=tmp_path / "none.onnx", contract=CONTRACT_7)

    assert list(tmp_path.iterdir()) == []


def test_the_pins_are_those_of_the_lock():
    lock = (REPOSITORY / "requirements.lock").read_text()
    locked = re.findall(r"^((?:numpy|pillow|onnxruntime)==[^\\\n]*?) *\\$", lock, re.MULTILINE)

    # The lock takes the runtime for GPUs on some platforms; a bundle takes the plain one everywhere.
    wanted = [re.sub(r"^(onnxruntime==\S+) ;.*", r"\1", line) for line in locked]

    assert sorted(wanted) == sorted(REQUIREMENTS)
    assert len(wanted) == 4
