from __future__ import annotations

import re
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def made(repository):
    """The page as the code makes it, in a process of its own: metrics count what other tests do."""
    script = repository / "deploy" / "metrics_reference.py"
    return subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def page(repository):
    return (repository / "docs" / "metrics.md").read_text()


def rows(page):
    """(section, metric, type, labels, unit, meaning) of every metric."""
    section, found = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        elif line.startswith("| `defectoscope_"):
            found.append((section, *(cell.strip() for cell in line.strip("|").split(" | "))))
    return found


def test_the_page_of_metrics_is_the_one_the_code_makes(page, made):
    assert page == made


def test_every_metric_has_a_type_and_a_sentence(page):
    described = rows(page)

    assert {section for section, *_ in described} == {"worker", "api", "trainer"}
    assert len(described) > 30
    for _, name, kind, labels, unit, meaning in described:
        assert re.fullmatch(r"`defectoscope_[a-z_]+`", name)
        assert kind in {"counter", "gauge", "histogram"}
        assert (kind == "counter") == name.endswith("_total`")
        assert labels.count("`") % 2 == 0
        assert bool(unit) == bool(re.search(r"_(seconds|bytes|per_second|iou|fill)(_total)?`$", name))
        assert re.fullmatch(r"[A-Z0-9`].*\.", meaning)


def test_the_questions_are_answered_by_metrics_that_exist(page):
    head = page.partition("## worker")[0]
    known = {name.strip("`") for _, name, *_ in rows(page)}
    asked = {re.sub(r"_(sum|count|bucket)$", "", name) for name in re.findall(r"defectoscope_\w+", head)}

    assert len(asked) > 5
    assert asked <= known
