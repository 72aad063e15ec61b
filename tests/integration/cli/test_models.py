"""Models from the command line against real processes: decisions, history at a moment, files out and models in."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image as Picture

from defectoscope.cli.main import main
from defectoscope.database import DatasetItem, DatasetRevision, Image, Label, Split
from defectoscope.registry import ImageEvaluation, VariantFile, publish, record_evaluation
from defectoscope.segmentation import PixelCounts
from tests.models import CONTRACT, write_dark_is_defect

REASON = ("--reason", "Checked on last week's parts.")
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def write_plain(path, *, input_type=TensorProto.FLOAT):
    """A file as a notebook exports it, 64 x 64: the darker a pixel, the more it is defect."""
    weights = np.zeros((2, 3, 1, 1), dtype=np.float32)
    weights[1] = -1.5
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weights", "bias"], ["output"], kernel_shape=[1, 1])],
        "plain",
        [helper.make_tensor_value_info("input", input_type, ["N", 3, 64, 64])],
        [helper.make_tensor_value_info("output", input_type, ["N", 2, 64, 64])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.zeros(2, np.float32), "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def add_version(parts, tmp_path_factory):
    """Publish one more version that calls dark defect; return its number."""
    database, storage = parts
    directory = tmp_path_factory.mktemp("versions")

    def add():
        def build(contract):
            path = write_dark_is_defect(directory / f"{contract.version}.onnx", contract)
            return [
                VariantFile(precision="fp32", path=path, parity={"max_difference": 0.0021, "mask_iou": 1.0}),
                VariantFile(precision="int8", path=None, parity={"iou": 0.71}, reason="Its IoU is 0.03 below fp32's."),
            ]

        return publish(
            database=database,
            storage=storage,
            contract=CONTRACT,
            build=build,
            training_run_id=None,
            dataset_revision_id=None,
            operating_point={
                "tuned": True,
                "objective": "iou",
                "note": "Chosen by the largest mean IoU.",
                "escape_rate": {"mean": 0.02, "low": 0.0, "high": 0.0512345, "images": 40},
                "false_call_rate": None,
            },
        )

    return add


@pytest.fixture(scope="module")
def score(parts):
    """Record how versions did on three images: of 10 defect pixels, so many were found."""
    database, _ = parts
    with database.transaction() as session:
        revision = DatasetRevision(
            name="scored", number=1, sha256="0" * 64, manifest_key="k", train_count=1, val_count=3
        )
        session.add(revision)
        session.flush()
        image_ids = []
        for number in range(1, 4):
            sha256 = f"{number:064x}"
            image = Image(sha256=sha256, key=sha256, size_bytes=1, width=10, height=10, format="PNG", source_mode="RGB")
            session.add(image)
            session.flush()
            label = Label(image_id=image.id, key="k", sha256=sha256, defect_px=10, source="dataset:scored")
            session.add(label)
            session.flush()
            session.add(
                DatasetItem(
                    revision_id=revision.id,
                    image_id=image.id,
                    label_id=label.id,
                    name=f"part {number}.png",
                    split=Split.VAL,
                )
            )
            image_ids.append(image.id)
        revision_id = revision.id

    def record(number, *found):
        entries = [
            ImageEvaluation(image_id=image_id, counts=PixelCounts(tp, 0, 10 - tp, 90))
            for image_id, tp in zip(image_ids, found, strict=True)
        ]
        with database.transaction() as session:
            record_evaluation(session, number=number, revision_id=revision_id, precision="fp32", entries=entries)

    return record


@pytest.fixture(scope="module")
def imported(system, trainer, tmp_path_factory):
    """A plain file and what the command that imported it said."""
    path = write_plain(tmp_path_factory.mktemp("given") / "theirs.onnx")
    answer = system.run(
        *("models", "import", path, "--architecture", "Darkness", "--threshold", "0.4", "--watch", "--json")
    )
    assert answer.returncode == 0, answer.stderr + trainer.read_text()[-3000:]
    return path, json.loads(answer.stdout)


def champion(system):
    return system.ask("models", "history", "--limit", "1")["in_service"]["model_version"]


def test_a_promotion_and_its_rollback_are_in_the_history_at_each_moment(system, add_version):
    first = champion(system)
    second = add_version()

    promoted = system.ask("models", "promote", second, *REASON)
    said = system.run("models", "rollback", *REASON)

    back, forth = system.ask("models", "history", "--limit", "2")["items"]
    assert promoted["is_champion"] is True
    assert said.stdout == f"Model {first} is back in service in place of model {second}.\n"
    assert (forth["action"], forth["model_version"], forth["actor"]) == ("promoted", second, getpass.getuser())
    assert (back["action"], back["model_version"]) == ("rolled_back", first)
    at_promotion = system.ask("models", "history", "--as-of", forth["created_at"])
    just_before = datetime.fromisoformat(forth["created_at"]) - timedelta(microseconds=1)
    assert at_promotion["in_service"]["model_version"] == second
    assert system.ask("models", "history", "--as-of", just_before.isoformat())["in_service"]["model_version"] == first
    assert champion(system) == first


def test_history_says_in_words_what_was_in_service(system, add_version):
    before = system.run("models", "history", "--as-of", "2020-02-03T04:05")
    now = system.run("models", "history")

    assert before.stdout == "No model was in service at 2020-02-03 04:05:00.\n\nNothing had been decided.\n"
    assert now.stdout.startswith(f"Model {champion(system)} is in service now, since ")
    assert "dark is defect" in now.stdout


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        pytest.param(["promote", 1], (2, "Missing option '--reason'"), id="promote without a reason"),
        pytest.param(["rollback"], (2, "Missing option '--reason'"), id="rollback without a reason"),
        pytest.param(["retire", 1], (2, "Missing option '--reason'"), id="retire without a reason"),
        pytest.param(["promote", 99, *REASON], (1, "(model_version_not_found)"), id="unknown version"),
        pytest.param(["history", "--as-of", "yesterday"], (2, "is not a time such as"), id="an unclear moment"),
        pytest.param(["export", 1, "--variant", "int8"], (1, "(model_variant_unavailable)"), id="no such file"),
        pytest.param(["export", 1, "--out", "no/where/x.onnx"], (1, "There is no directory"), id="no directory"),
        pytest.param(["export", 1, "--format", "plain", "--variant", "fp16"], (2, "only the fp32"), id="plain fp16"),
        pytest.param(["import", "gone.onnx"], (1, "There is no file gone.onnx"), id="no file"),
        pytest.param(["compare", 1, 1], (1, "(scores_not_comparable)"), id="one version"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(system, monkeypatch, capsys, arguments, refusal):
    # In this process: nothing that these rows are about needs another one, and each would take seconds.
    for name, value in system.environment.items():
        monkeypatch.setenv(name, value)

    status = main(["models", *map(str, arguments)])

    shown = capsys.readouterr()
    assert (status, shown.out) == (refusal[0], "")
    assert refusal[1] in shown.err
    assert len(shown.err.splitlines()) == 1


def test_a_version_is_retired_with_its_files(system, add_version, tmp_path):
    number = add_version()

    said = system.run("models", "retire", number, "--drop-weights", *REASON)
    shown = system.run("models", "show", number)
    export = system.run("models", "export", number, "--out", tmp_path)

    assert said.stdout == f"Model {number} is retired and its files are deleted.\n"
    assert "not published: the file was dropped" in shown.stdout
    assert "(model_weights_dropped)" in export.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_shown_with_all_that_is_known(system, add_version, score):
    number = add_version()
    score(number, 7, 8, 9)
    system.run("models", "promote", number, *REASON)
    system.run("models", "rollback", *REASON)

    listed, shown = system.run("models", "list").stdout, system.run("models", "show", number).stdout

    assert [line.split()[:2] for line in listed.splitlines()[2:3]] == [[str(number), "darkness"]]
    assert "0.800" in listed
    assert "scored@1" in listed
    assert "2.0% (0.0% to 5.1%) of 40 defective images called clean" in shown
    assert "not published: Its IoU is 0.03 below fp32's." in shown
    assert "Checked on last week's parts." in shown


def test_two_versions_are_compared_in_words(system, add_version, score):
    a, b = add_version(), add_version()
    score(a, 8, 8, 2)
    score(b, 6, 8, 5)

    said = system.run("models", "compare", a, b).stdout
    found = system.ask("models", "compare", a, b, "--dataset", "scored@1")

    assert said.startswith(f"Model {b} against model {a} on scored@1  the gate would refuse it\n")
    lines = [line.split() for line in said.splitlines()]
    assert ["part", "1.png", "0.800", "0.600", "-0.200"] in lines
    assert ["part", "3.png", "0.200", "0.500", "+0.300"] in lines
    assert found["figures"]["groups"] == 3


def test_the_served_file_is_exported_as_it_is_stored(system, tmp_path):
    said = system.ask("models", "export", 1, "--out", tmp_path / "served.onnx")

    data = (tmp_path / "served.onnx").read_bytes()
    assert hashlib.sha256(data).hexdigest() == said["sha256"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["served.onnx"]
    assert onnxruntime.InferenceSession(data).get_modelmeta().custom_metadata_map["defectoscope.version"] == "1"


def test_a_foreign_model_becomes_a_version_that_is_not_in_service(system, imported):
    _, said = imported
    model = system.ask("models", "show", said["model_version"])

    assert (said["state"], said["file_name"]) == ("succeeded", "theirs.onnx")
    assert (model["origin"], model["architecture"], model["threshold"]) == ("import", "Darkness", 0.4)
    assert model["is_champion"] is False
    assert [(line["action"], line["actor"]) for line in model["ledger"]] == [("imported", getpass.getuser())]


def test_a_plain_file_comes_back_as_it_was_given(system, imported, tmp_path):
    given, said = imported

    answer = system.run("models", "export", said["model_version"], "--format", "plain", "--out", tmp_path)

    back = tmp_path / "deeplabv3_plus_model.onnx"
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"Wrote {back} (")
    image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    pixels = ((image / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    logits = [onnxruntime.InferenceSession(path).run(None, {"input": pixels})[0] for path in (given, back)]
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)


def test_a_served_file_that_was_never_plain_is_refused_with_the_reason(system, tmp_path):
    answer = system.run("models", "export", 1, "--format", "plain", "--out", tmp_path)

    assert answer.returncode == 1
    assert "(plain_export_refused)" in answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("write", "code"),
    [
        pytest.param(lambda path: path.write_text("not a model"), "model_not_onnx", id="text"),
        pytest.param(
            lambda path: write_plain(path, input_type=TensorProto.DOUBLE), "model_input_refused", id="float64 input"
        ),
    ],
)
@pytest.mark.usefixtures("trainer")
def test_a_file_that_cannot_be_taken_is_refused_by_code_and_no_version_appears(system, tmp_path, write, code):
    write(tmp_path / "bad.onnx")
    before = system.ask("models", "list")["items"]

    answer = system.run("models", "import", tmp_path / "bad.onnx", "--watch")

    assert answer.returncode == 1
    assert answer.stdout.startswith("bad.onnx was not imported: ")
    assert answer.stdout.rstrip().endswith(f"({code})")
    assert system.ask("models", "list")["items"] == before
    assert system.ask("events", "list", "--kind", "model.import_failed")["items"][0]["details"]["code"] == code


def test_a_bundle_predicts_by_itself(system, tmp_path):
    answer = system.run("models", "bundle", 1, "--out", tmp_path / "model.zip")

    assert answer.returncode == 0, answer.stderr
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path / "bundle")
    (tmp_path / "images").mkdir()
    Picture.new("RGB", (256, 256), "black").save(tmp_path / "images" / "dark.png")
    done = subprocess.run(
        [sys.executable, "predict.py", str(tmp_path / "images"), str(tmp_path / "masks")],
        cwd=tmp_path / "bundle",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [mask] = (tmp_path / "masks").iterdir()
    assert np.asarray(Picture.open(mask).convert("L")).min() == 255


def test_events_tell_what_happened(system, add_version):
    number = add_version()
    system.run("models", "promote", number, *REASON)
    system.run("models", "rollback", *REASON)

    said = system.run("events", "list", "--limit", "1").stdout
    promoted = system.ask("events", "list", "--kind", "model.promoted")["items"][0]

    assert "warning" in said
    assert f"is back in service in place of version {number}." in said
    assert (promoted["subject"], promoted["details"]["reason"]) == (f"model:{number}", REASON[1])
