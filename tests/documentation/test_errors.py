from __future__ import annotations

import re
from collections import Counter

import pytest

from defectoscope.cli.error_reference import BRANCHES, branch_of, sentence, to_markdown
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.catalogue import descendants

ERRORS = list(descendants(DefectoscopeError))
every_error = pytest.mark.parametrize("error", [pytest.param(error, id=error.code) for error in ERRORS])


def test_the_page_of_errors_is_the_one_the_code_makes(repository):
    page = (repository / "docs" / "errors.md").read_text()

    assert page == to_markdown()


def test_the_page_lists_every_code_once():
    listed = re.findall(r"^\| `([a-z0-9_]+)` \|", to_markdown(), re.MULTILINE)

    assert len(ERRORS) > 40
    assert Counter(listed) == Counter(error.code for error in ERRORS)


@every_error
def test_a_code_is_snake_case_and_belongs_to_a_branch(error):
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", error.code)
    assert branch_of(error) in BRANCHES


def test_codes_are_unique():
    assert [code for code, count in Counter(error.code for error in ERRORS).items() if count > 1] == []


@every_error
def test_a_message_is_one_sentence(error):
    message = sentence(error)

    assert message[0].isupper()
    assert message.endswith(".")
    assert not re.search(r"[.?!] [A-Z]", message)


@every_error
def test_a_class_says_its_own_sentence(error):
    assert sentence(error) != sentence(error.__bases__[0])


def test_errors_are_defined_in_one_place(repository_files, repository):
    names = "|".join([DefectoscopeError.__name__, *(error.__name__ for error in ERRORS)])
    elsewhere = [
        str(path.relative_to(repository))
        for path in repository_files
        if path.suffix == ".py"
        and path.parent != repository / "defectoscope" / "errors"
        and re.search(rf"^class \w+\((?:{names})\)", path.read_text(), re.MULTILINE)
    ]

    assert elsewhere == []
