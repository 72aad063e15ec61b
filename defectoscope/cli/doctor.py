"""`defectoscope doctor`: looks at this machine and at everything the settings name, and says what would help."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import typer
from rich.text import Text

from defectoscope.cli.doctor_checks import (
    Check,
    check_api,
    check_disk,
    check_parts,
    check_servers,
    check_settings,
    check_worker,
)
from defectoscope.cli.output import Cell, print_facts, print_json, print_table, progress, say, state_text
from defectoscope.cli.session import JsonOption
from defectoscope.errors.installation import SettingMissing

#: Lists of packages and settings are long.
_COLUMN_WIDTH = 90
_TITLES = {
    "parts": "Installed parts",
    "settings": "Settings that are set (names only)",
    "servers": "Servers",
    "api": "API",
    "disk": "Disk",
    "worker": "Worker",
}


def doctor(as_json: JsonOption = False) -> None:
    """Look at this machine, the settings and the servers; the exit status is 1 when something needed is broken."""
    with progress("Looking", None):
        checks = list(_checks())
        worker, said = check_worker()
    checks.append(worker)
    machine = {
        "defectoscope": version("defectoscope"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
    }
    problems = [check for check in checks if check.state == "problem"]
    if as_json:
        print_json(
            {
                "ok": not problems,
                "machine": machine,
                "checks": [dataclasses.asdict(check) for check in checks],
                "worker": said,
            }
        )
    else:
        _print(machine, checks, said)
    if problems:
        raise typer.Exit(1)


def _checks() -> Iterator[Check]:
    from defectoscope.settings import load_settings

    yield from check_parts()
    yield from check_settings()
    try:
        settings = load_settings()
    except SettingMissing as exc:
        remedy = "Correct the variable; `defectoscope settings` says what it may be."
        yield Check(group="settings", name="values", state="problem", found=exc.message, remedy=remedy)
        return
    yield from check_servers(settings)
    yield from check_api(settings)
    yield from check_disk(settings)


def _print(machine: dict[str, str], checks: list[Check], said: Any) -> None:
    facts: dict[str, Cell] = dict(machine)
    print_facts(facts)
    for group, title in _TITLES.items():
        members = [check for check in checks if check.group == group]
        if members:
            say()
            say(title, style="bold")
            print_table(
                {"": "left", "state": "left", "found": "left"},
                [[check.name, state_text(check.state), check.found] for check in members],
                empty="",
                indent=2,
                column_width=_COLUMN_WIDTH,
            )
    if isinstance(said, dict):
        say()
        print_facts({str(name): _flat(value) for name, value in said.items()}, indent=2)
    problems = [check for check in checks if check.state == "problem"]
    say()
    if not problems:
        say("Nothing needed is broken.", style="green")
        return
    say(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}:", style="bold red")
    print_facts({f"{check.name}": Text(check.remedy) for check in problems}, indent=2)


def _flat(value: object) -> str:
    """Return what the worker said in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value) or "none"
    return str(value)
