"""Datasets, training runs and the doctor, by the real commands."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from defectoscope.samples import generate_samples
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
    assert "Left out: 3 files" in shown.stdout


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

    assert first_line == f"Training run {run['id']}: 0, pending\n"
    assert watching.returncode == 130
    assert (answer, complaint) == ("", "")


def test_the_doctor_finds_nothing_wrong_with_a_running_system(system):
    answer = system.ask("doctor")

    states = {(check["group"], check["name"]): check["state"] for check in answer["checks"]}
    assert answer["ok"]
    assert [states["servers", name] for name in ("database", "queue", "storage")] == ["ok", "ok", "ok"]
    assert states["api", system.environment["DEFECTOSCOPE_API__URL"]] == "ok"
    assert answer["worker"]["provider"] == "CPUExecutionProvider"


def test_the_doctor_shows_no_secret(system, connections):
    shown = system.run("doctor")

    secrets = (connections.s3_secret_key, connections.queue_url, connections.database_url)
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
