from __future__ import annotations

import re
import tomllib
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def test_the_lock_holds_the_libraries_that_onnx_runtime_loads_on_a_gpu(repository):
    """Without them onnxruntime-gpu installs and starts all the same, and the worker finds no CUDA."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lock = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (repository / "requirements.lock").read_text(), re.MULTILINE))

    runtimes = [
        requirement
        for extra in ("worker", "trainer")
        for requirement in map(Requirement, project["optional-dependencies"][extra])
        if requirement.name == "onnxruntime-gpu"
    ]
    libraries = [
        requirement
        for requirement in map(Requirement, metadata.requires("onnxruntime-gpu") or [])
        if requirement.marker is not None
        and any(requirement.marker.evaluate({"extra": extra}) for extra in ("cuda", "cudnn"))
    ]

    assert [runtime.extras for runtime in runtimes] == [{"cuda", "cudnn"}] * 2
    assert len(libraries) >= 4
    assert [str(one) for one in libraries if lock.get(canonicalize_name(one.name), "0") not in one.specifier] == []
