"""What holds for every command: help without weight, errors in one sentence, documentation that is the code's own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from typer.main import get_command

from defectoscope.cli import reference
from defectoscope.cli.doctor_checks import PARTS
from defectoscope.cli.main import app, main
from defectoscope.cli.settings import describe_settings, to_markdown

DOCS = Path(__file__).parents[3] / "docs"

#: What `--help` must not load: engines, servers' clients, and what is merely slow.
HEAVY = (
    "torch",
    "onnxruntime",
    "sqlalchemy",
    "boto3",
    "botocore",
    "obstore",
    "celery",
    "httpx",
    "numpy",
    "cv2",
    "pydantic_settings",
)


def command_paths(command=None, path=()):
    """Every noun and verb, as the words to type."""
    command = command or get_command(app)
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from command_paths(child, (*path, name))


def run(*arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")}
    return subprocess.run(
        [sys.executable, "-m", "defectoscope", *arguments],
        env=kept | {"DEFECTOSCOPE_CONNECTION_FILE": os.devnull} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("path", list(command_paths()), ids=lambda path: " ".join(path) or "defectoscope")
def test_every_command_has_help(path, capsys):
    status = main([*path, "--help"])

    shown = capsys.readouterr()
    assert status == 0
    assert "Usage: defectoscope" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("path", [p for p in command_paths() if len(p) == 2], ids=" ".join)
def test_every_verb_speaks_json(path, capsys):
    main([*path, "--help"])

    assert "--json" in capsys.readouterr().out


def test_help_loads_nothing_heavy_and_reads_no_settings():
    script = (
        "import sys\n"
        "from defectoscope.cli.main import main\n"
        "status = main(['jobs', 'submit', '--help'])\n"
        f"print(status, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    # A setting that cannot be read would be complained about.
    environment = os.environ | {"DEFECTOSCOPE_API__PORT": "not a number"}

    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stderr == "0 []\n"


def test_the_reference_of_commands_is_the_commands_own():
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == reference.to_markdown()


def test_the_reference_of_settings_is_the_settings_own():
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == to_markdown()


def test_every_setting_says_what_it_means():
    undescribed = [setting.variable for setting in describe_settings() if not setting.description]

    assert undescribed == []


def test_settings_as_json_names_every_variable_and_shows_no_value(capsys, monkeypatch):
    monkeypatch.setenv("DEFECTOSCOPE_STORAGE__SECRET_KEY", "hunter2")

    status = main(["settings", "--json"])

    shown = capsys.readouterr().out
    assert status == 0
    assert "DEFECTOSCOPE_STORAGE__SECRET_KEY" in {item["variable"] for item in json.loads(shown)["items"]}
    assert "hunter2" not in shown


def test_doctor_knows_every_package_that_a_part_requires():
    declared = {}
    for line in requires("defectoscope") or []:
        name = re.match(r"[A-Za-z0-9._-]+", line).group()
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        declared.setdefault(extra.group(1) if extra else "core", set()).add(name)
    del declared["dev"]

    assert {part: {name for names in packages for name in names} for part, packages in PARTS.items()} == declared


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["jobs", "show"], "Missing argument 'ID'.", id="no argument"),
        pytest.param(["jobs", "show", "seven"], "Invalid value for 'ID'", id="no number"),
        pytest.param(["jobs", "shwo"], "No such command 'shwo'", id="no verb"),
        pytest.param(["jobs", "list", "--colour"], "No such option: --colour", id="no option"),
        pytest.param(["jobs", "submit"], "name a SOURCE", id="no source"),
        pytest.param(["jobs", "submit", "s3://line-3/a", "s3://line-3/b"], "one s3:// prefix", id="two prefixes"),
        pytest.param(["jobs", "submit", "s3://line-3/a", "--labels", "here"], "object storage", id="local labels"),
        pytest.param(["jobs", "submit", "a.zip", "b.zip"], "submitted alone", id="two archives"),
        pytest.param(["training", "start", "--dataset", "steel", "--set", "epochs"], "key=value", id="no value"),
    ],
)
def test_wrong_use_is_one_sentence_and_status_2(arguments, sentence, capsys):
    status = main(arguments)

    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert sentence in shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1


def test_a_failure_is_one_sentence_with_its_code_and_status_1(tmp_path):
    done = run("datasets", "import", str(tmp_path / "nowhere"), "--name", "steel", "--json")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == f"error: There is no directory {tmp_path / 'nowhere'}. (invalid_request)\n"


def test_an_api_that_is_away_is_said_in_one_sentence():
    done = run("jobs", "list", DEFECTOSCOPE_API__URL="http://127.0.0.1:9")

    assert done.returncode == 1
    assert done.stderr.startswith("error: The Defectoscope API at http://127.0.0.1:9 does not answer")
    assert done.stderr.count("\n") == 1


def test_a_setting_that_cannot_be_read_is_named():
    done = run("jobs", "list", DEFECTOSCOPE_API__PORT="many")

    assert done.returncode == 1
    assert "DEFECTOSCOPE_API__PORT" in done.stderr
    assert "many" not in done.stderr


def test_a_reader_that_has_seen_enough_gets_no_complaint():
    # `head` closes its end while the rest is still being written.
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m defectoscope settings | head -n 1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_samples_are_drawn_without_any_server(tmp_path):
    done = run("samples", "generate", str(tmp_path / "steel"), "--count", "5", "--json")

    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert (answer["count"], answer["train_count"], answer["val_count"]) == (5, 4, 1)
    assert len(list((tmp_path / "steel" / "images").rglob("*.jpg"))) == 5


def test_predict_says_what_is_missing_where_there_is_no_worker(tmp_path):
    # What an installed wheel sees: `defectoscope` is there, and no folder that holds `worker` beside it.
    script = (
        "import os, sys\n"
        "from defectoscope.cli.main import main\n"
        "sys.path[:] = [p for p in sys.path if os.path.isdir(p) and 'worker' not in os.listdir(p)]\n"
        "sys.exit(main(['predict', 'a.png', '--out', 'out', '--model', 'm.onnx']))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 1
    assert "(component_missing)" in done.stderr
