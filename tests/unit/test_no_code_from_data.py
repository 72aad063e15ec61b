"""Nothing that is read may become code: no pickle, no eval, no loader that runs what a file says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("defectoscope", "api", "worker", "trainer", "migrations", "benchmarks", "deploy")

#: Modules whose very use is the danger: their formats hold instructions.
MODULES = frozenset(
    {
        "pickle",
        "_pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "joblib",
        "jsonpickle",
        "marshal",
        "shelve",
        "code",
        "codeop",
    }
    | {"xml.dom.minidom", "xml.etree.ElementTree", "xml.sax", "xml.dom.pulldom"}
)
#: Functions, as they are written, that run or unpack what they are given.
FUNCTIONS = frozenset(
    {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn", "tempfile.mktemp"}
    | {"yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.unsafe_load_all"}
    | {"torch.jit.load", "torch.package.PackageImporter", "torch.hub.load", "pandas.read_pickle", "pd.read_pickle"}
    | {"shutil.unpack_archive", "numpy.lib.npyio.NpzFile"}
)
#: Methods that write wherever an archive says.
METHODS = frozenset({"extractall", "extract"})


#: Names that may be taken from such a module: errors that a safe loader raises.
ERRORS = frozenset({"UnpicklingError"})


def problems_in(source, name="<source>"):
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(name, node.lineno, alias.name) for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found += [(name, node.lineno, node.module) for alias in node.names if alias.name not in ERRORS]
        elif isinstance(node, ast.Call):
            found += [(name, node.lineno, problem) for problem in _problems_of_call(node)]
    return found


def _problems_of_call(node):
    called = ast.unparse(node.func)
    receiver, _, last = called.rpartition(".")
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called in FUNCTIONS:
        yield called
    # SQL has a function of that name.
    if receiver not in {"", "func"} and last in METHODS:
        yield last
    if (called == "torch.load" or last == "load_from_checkpoint") and given.get("weights_only") != "True":
        yield f"{called} without weights_only=True"
    for option in ("allow_pickle", "shell"):
        if given.get(option, "False") != "False":
            yield option


def test_no_source_of_ours_turns_data_into_code():
    files = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]

    found = [
        problem
        for path in files
        for problem in problems_in(path.read_text(encoding="utf-8"), str(path.relative_to(REPOSITORY)))
    ]

    assert len(files) > 200
    assert found == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        pytest.param("import pickle", "pickle", id="import"),
        pytest.param("from pickle import loads", "pickle", id="from-import"),
        pytest.param("eval(text)", "eval", id="eval"),
        pytest.param("torch.load(path)", "torch.load without weights_only=True", id="torch-load"),
        pytest.param("torch.load(path, weights_only=False)", "torch.load without weights_only=True", id="torch-unsafe"),
        pytest.param("yaml.load(text, Loader=loader)", "yaml.load", id="yaml"),
        pytest.param("np.load(path, allow_pickle=True)", "allow_pickle", id="numpy"),
        pytest.param("subprocess.run(line, shell=True)", "shell", id="shell"),
        pytest.param("archive.extractall(directory)", "extractall", id="extractall"),
    ],
)
def test_each_danger_is_found(source, problem):
    assert [found[2] for found in problems_in(source)] == [problem]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "np.load(path, allow_pickle=False)",
        "re.compile(x)",
    ],
)
def test_the_safe_form_passes(source):
    assert problems_in(source) == []
