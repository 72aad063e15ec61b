"""Datasets, training runs and the doctor, by the real commands."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from defectoscope.cli.up import default_data_dir
from defectoscope.samples import generate_samples
from defectoscope.segmentation import decode_label, encode_class_mask
from tests.integration.cli.conftest import CommandLine
from tests.models import write_dark_is_defect


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "steel"
    generate_samples(root, count=10, seed=1, layout="split")
    return root


def test_a_split_layout_becomes_a_revision_and_stays_it(system, samples):
    first = system.ask("datasets", "import", samples)
    again = system.ask("datasets", "import", samples)

    assert first["dataset"]["reference"] == "steel@1"
    assert (first["dataset"]["train_count"], first["dataset"]["val_count"]) == (8, 2)
    assert first["left_out"] == []
    assert again == first


def test_rejected_pairs_are_reported_and_the_rest_is_imported(system, tmp_path):
    root = tmp_path / "flat"
    generate_samples(root, count=8, seed=2, layout="flat")
    images = sorted((root / "images").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:500])
    (root / "images" / "twin.jpg").write_bytes(images[1].read_bytes())
    (root / "labels" / "twin.png").write_bytes((root / "labels" / f"{images[1].stem}.png").read_bytes())
    (root / "images" / "unlabelled.jpg").write_bytes(images[2].read_bytes())

    answer = system.ask("datasets", "import", root, "--val-fraction", "0.3")
    shown = system.run("datasets", "import", root, "--val-fraction", "0.3")

    dataset = answer["dataset"]
    assert dataset["train_count"] + dataset["val_count"] == 7
    assert sorted(item["code"] for item in answer["left_out"]) == [
        "image_truncated",
        "image_twice",
        "image_without_label",
    ]
    assert "Left out: 3" in shown.stdout


@pytest.fixture(scope="module")
def ignoring(tmp_path_factory):
    """Ten images of five parts; each label has a stripe of ignored pixels, and one of them shows nothing else."""
    root = tmp_path_factory.mktemp("ignoring") / "stripes"
    generate_samples(root, count=10, seed=3, layout="flat")
    labels = sorted((root / "labels").iterdir())
    for label in labels:
        class_mask = decode_label(label.read_bytes())
        class_mask[:, 40:60] = 255
        if label == labels[0]:
            class_mask[class_mask == 1] = 0
        label.write_bytes(encode_class_mask(class_mask))
    rows = [f"{label.stem},tile {number // 2}" for number, label in enumerate(labels)]
    (root / "manifest.csv").write_text("\n".join(["stem,group", *rows]) + "\n")
    return root


def read_export(root):
    """Class mask, split and group of each image of a folder export, by the image's bytes."""
    with (root / "manifest.csv").open(newline="") as stream:
        rows = {row["stem"]: row for row in csv.DictReader(stream)}
    found = {}
    for image in sorted((root / "images").rglob("*.*")):
        label = (root / "labels" / image.relative_to(root / "images")).with_suffix(".png")
        row = rows[image.stem]
        found[image.read_bytes()] = (decode_label(label.read_bytes()), row["split"], row["group"])
    return found


@pytest.fixture(scope="module")
def stripes(system, ignoring, tmp_path_factory):
    """What the import of those images said, and what a folder export of them holds."""
    answer = system.ask("datasets", "import", ignoring)
    out = tmp_path_factory.mktemp("exported") / "out"
    system.ask("datasets", "export", "stripes", "--format", "folder", "--out", out)
    return answer, read_export(out)


def test_an_export_holds_the_images_and_class_masks_that_were_imported(ignoring, stripes):
    answer, exported = stripes

    by_image = {
        image.read_bytes(): decode_label((ignoring / "labels" / f"{image.stem}.png").read_bytes())
        for image in (ignoring / "images").iterdir()
    }
    assert by_image.keys() == exported.keys()
    for image, class_mask in by_image.items():
        np.testing.assert_array_equal(exported[image][0], class_mask)
    assert {group for _, _, group in exported.values()} == {f"tile {number}" for number in range(5)}
    with_defects = sum((class_mask == 1).any() for class_mask in by_image.values())
    assert answer["taken"] == {
        "images": 10,
        "with_defects": with_defects,
        "clean": 10 - with_defects,
        "with_ignored_pixels": 10,
    }


@pytest.mark.parametrize("form", ["folder", "flat", "coco", "label-studio"])
def test_an_export_imported_again_is_the_same_set(system, stripes, tmp_path, form):
    answer, exported = stripes
    system.ask("datasets", "export", "stripes", "--format", form, "--out", tmp_path / "out")

    again = system.ask("datasets", "import", tmp_path / "out", "--name", f"again-{form}")

    system.ask("datasets", "export", f"again-{form}", "--format", "flat", "--out", tmp_path / "again")
    back = read_export(tmp_path / "again")
    assert again["taken"] == answer["taken"]
    assert (again["left_out"], again["remarks"], again["dataset"]["moves"]) == ([], [], [])
    assert exported.keys() == back.keys()
    for image, (class_mask, split, group) in exported.items():
        np.testing.assert_array_equal(back[image][0], class_mask)
        assert back[image][1:] == (split, group)


def test_parquet_has_every_image_of_a_revision(system, stripes, tmp_path):
    dataset = stripes[0]["dataset"]

    answer = system.ask("datasets", "export", "stripes", "--format", "parquet", "--out", tmp_path / "out")

    rows = {
        split: pyarrow.parquet.ParquetFile(tmp_path / f"out/{split}.parquet").read().to_pylist()
        for split in ("train", "val")
    }
    assert (len(rows["train"]), len(rows["val"])) == (dataset["train_count"], dataset["val_count"])
    assert answer["dataset"]["reference"] == dataset["reference"]
    assert all((decode_label(row["label"])[:, 40:60] == 255).all() for row in rows["train"])


def test_an_export_into_a_directory_with_files_is_refused(system, samples, tmp_path):
    system.run("datasets", "import", samples)
    (tmp_path / "mine.txt").write_text("mine")

    refused = system.run("datasets", "export", "steel", "--format", "coco", "--out", tmp_path)

    assert refused.returncode == 1
    assert "(export_directory_not_empty)" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_extension_keeps_what_was_there_and_takes_the_newer_label(system, tmp_path):
    generate_samples(tmp_path / "all", count=8, seed=4, layout="flat")
    images = sorted((tmp_path / "all/images").iterdir())
    for number, image in enumerate(images):
        for root in ["first"] if number < 6 else ["second"]:
            (tmp_path / root / "images").mkdir(parents=True, exist_ok=True)
            (tmp_path / root / "labels").mkdir(exist_ok=True)
            label = tmp_path / "all/labels" / f"{image.stem}.png"
            shutil.copy(image, tmp_path / root / "images")
            shutil.copy(label, tmp_path / root / "labels")
    relabelled = tmp_path / "second/images" / images[0].name
    shutil.copy(images[0], relabelled)
    height, width = decode_label((tmp_path / "all/labels" / f"{images[0].stem}.png").read_bytes()).shape
    newer = np.full((height, width), 255, dtype=np.uint8)
    newer[3:9, 3:9] = 1
    (tmp_path / "second/labels" / f"{images[0].stem}.png").write_bytes(encode_class_mask(newer))

    first = system.ask("datasets", "import", tmp_path / "first", "--name", "growing")["dataset"]
    second = system.ask("datasets", "import", tmp_path / "second", "--name", "growing", "--extend")["dataset"]

    system.ask("datasets", "export", "growing", "--format", "folder", "--out", tmp_path / "out")
    exported = read_export(tmp_path / "out")
    assert (first["reference"], first["train_count"] + first["val_count"]) == ("growing@1", 6)
    assert (second["reference"], second["train_count"] + second["val_count"]) == ("growing@2", 8)
    assert exported.keys() == {image.read_bytes() for image in images}
    np.testing.assert_array_equal(exported[images[0].read_bytes()][0], newer)


def test_class_numbers_that_mean_nothing_are_left_out_by_name(system, tmp_path):
    root = tmp_path / "numbers"
    generate_samples(root, count=6, seed=5, layout="flat")
    labels = sorted((root / "labels").iterdir())
    for label in labels:
        # Without the text chunk, as other tools write them.
        save_grey(label, decode_label(label.read_bytes()) * np.uint8(5 if label == labels[0] else 1))

    answer = system.ask("datasets", "import", root, "--label-values", "index")

    assert [(item["name"], item["code"]) for item in answer["left_out"]] == [
        (f"images/{labels[0].stem}.jpg", "label_values_unknown")
    ]
    assert answer["taken"]["images"] == 5


def save_grey(path, values):
    Image.fromarray(values).save(path)


def test_bad_annotations_are_reported_and_one_class_is_said(system, tmp_path):
    root = tmp_path / "coco"
    generate_samples(root, count=5, seed=6, layout="flat")
    shutil.rmtree(root / "labels")
    images = [
        {"id": number, "file_name": path.name}
        for number, path in enumerate(sorted((root / "images").iterdir()), start=1)
    ]
    bad = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 5]]}
    (root / "instances.json").write_text(json.dumps({"images": images[:4], "annotations": [bad]}))

    shown = system.run("datasets", "import", root)

    assert shown.returncode == 0, shown.stderr
    assert "Taken: 3 images, 0 with defects, 3 clean" in shown.stdout
    assert "polygon_invalid" in shown.stdout
    assert "image_not_listed" in shown.stdout
    assert "No label of the dataset shows any defect." in shown.stdout


def test_an_import_of_nothing_says_why(system, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"")

    refused = system.run("datasets", "import", tmp_path, "--name", "nothing")

    assert refused.returncode == 1
    assert "Left out: 1" in refused.stdout
    assert "There is no label for this image. (invalid_dataset)" in refused.stderr


def test_datasets_are_listed_and_shown(system, samples):
    system.run("datasets", "import", samples)

    references = [dataset["reference"] for dataset in system.ask("datasets", "list")["items"]]
    shown = system.run("datasets", "show", "steel")

    assert "steel@1" in references
    assert "training    8 images" in shown.stdout


def test_a_training_run_is_recorded_with_its_recipe(system, samples):
    system.run("datasets", "import", samples)

    run = system.ask("training", "start", "--dataset", "steel", "--preset", "quick", "--set", "epochs=2")
    shown = system.run("training", "show", run["id"])
    listed = system.ask("training", "list")["items"]

    assert run["dataset"] == "steel@1"
    assert run["config"] == {"preset": "quick", "epochs": 2}
    assert f"Training run {run['id']}  pending" in shown.stdout
    assert run["id"] in [entry["id"] for entry in listed]


def test_an_interrupted_watch_ends_quietly(system, samples):
    system.run("datasets", "import", samples)
    run = system.ask("training", "start", "--dataset", "steel")
    watching = subprocess.Popen(
        [sys.executable, "-m", "defectoscope", "training", "watch", str(run["id"])],
        env=system.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # No trainer runs here, so that the watch goes on until it is interrupted. Its first line says that it has begun.
    first_line = watching.stderr.readline()

    watching.send_signal(signal.SIGINT)
    answer, complaint = watching.communicate(timeout=20)

    assert first_line == f"Training run {run['id']}: pending\n"
    assert watching.returncode == 130
    assert (answer, complaint) == ("", "")


def test_the_doctor_finds_nothing_wrong_with_a_running_system(system):
    answer = system.ask("doctor")

    states = {(check["group"], check["name"]): check["state"] for check in answer["checks"]}
    assert answer["ok"]
    assert [states["servers", name] for name in ("database", "queue", "storage")] == ["ok", "ok", "ok"]
    assert states["api", system.environment["DEFECTOSCOPE_API__URL"]] == "ok"
    assert states["api", "token"] == "ok"
    assert (("disk", "data") in states) == default_data_dir().exists()
    assert answer["worker"]["provider"] == "CPUExecutionProvider"


def test_the_doctor_says_that_a_token_is_missing(system):
    without = {name: value for name, value in system.environment.items() if name != "DEFECTOSCOPE_API__TOKEN"}

    answer = CommandLine(without).ask("doctor", status=1)

    [problem] = [check for check in answer["checks"] if check["state"] == "problem"]
    assert (problem["group"], problem["name"]) == ("api", "token")
    assert "DEFECTOSCOPE_API__TOKEN" in problem["remedy"]


def test_the_doctor_shows_no_secret(system, connections):
    shown = system.run("doctor")

    token = system.environment["DEFECTOSCOPE_API__TOKEN"]
    secrets = (connections.s3_secret_key, connections.queue_url, connections.database_url, token)
    assert "DEFECTOSCOPE_STORAGE__SECRET_KEY" in shown.stdout
    assert not any(secret in shown.stdout + shown.stderr for secret in secrets)


def test_the_doctor_says_what_would_help_on_a_machine_where_nothing_runs(bare_environment):
    command_line = CommandLine(
        bare_environment
        | {
            "DEFECTOSCOPE_API__URL": "http://127.0.0.1:9",
            "DEFECTOSCOPE_QUEUE__URL": "redis://:hunter2@127.0.0.1:9/0",
        }
    )

    done = command_line.run("doctor")

    assert done.returncode == 1
    assert "2 problems:" in done.stdout
    assert "Start `defectoscope up`, or set DEFECTOSCOPE_API__URL" in done.stdout
    assert "Start the queue server" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_the_doctor_names_a_setting_that_is_misspelt(bare_environment):
    command_line = CommandLine(bare_environment | {"DEFECTOSCOPE_QUEUE__ULR": "redis://:hunter2@127.0.0.1:9/0"})

    answer = command_line.ask("doctor", status=1)

    [problem] = [check for check in answer["checks"] if check["name"] == "DEFECTOSCOPE_QUEUE__ULR"]
    assert (problem["state"], problem["found"]) == ("problem", "there is no such setting")
    assert "hunter2" not in str(answer)


def test_predict_runs_the_worker_without_any_server(bare_environment, samples, tmp_path):
    model = write_dark_is_defect(tmp_path / "dark.onnx")
    images = samples / "images" / "val"
    command_line = CommandLine(bare_environment | {"DEFECTOSCOPE_WORKER__DEVICE": "cpu"})

    done = command_line.run("predict", images, "--out", tmp_path / "out", "--model", model, "--json")

    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(list(images.iterdir()))
