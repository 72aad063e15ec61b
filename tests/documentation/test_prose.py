from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

import pytest

# Written so that no pattern finds itself.
FORBIDDEN = {
    "a-path-of-one-machine": r"(?<![\w.}])/(?:work|root|home|Users)/\w",
    "an-address-of-a-registry": (
        r"(?:pypi|pythonhosted|pytorch)\.org/(?:simple|packages|whl)"
        r"|\b(?:ghcr|quay|docker|nvcr)\.i[o]\b|index-ur[l]\b|registry\.npmj[s]"
    ),
    "work-left-for-later": r"\b(?:TOD[O]|FIXM[E]|XX[X])\b",
}


@pytest.mark.parametrize("pattern", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_no_file_holds(repository_files, repository, pattern):
    found = []
    for path in repository_files:
        content = path.read_bytes()
        if b"\0" not in content:
            lines = content.decode().splitlines()
            found += [
                f"{path.relative_to(repository)}:{number}: {line.strip()}"
                for number, line in enumerate(lines, start=1)
                if re.search(pattern, line)
            ]

    assert len(repository_files) > 100
    assert found == []


def without_code(text):
    """A page without its code, in which brackets mean something else."""
    return re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.DOTALL)


def test_every_relative_link_leads_to_a_file(pages, repository):
    followed, broken = 0, []
    for page in pages:
        for target in re.findall(r"\]\(<?([^)>\s]+)", without_code(page.read_text())):
            address = urlsplit(target)
            if address.scheme or not address.path:
                continue
            followed += 1
            if not (page.parent / unquote(address.path)).exists():
                broken.append(f"{page.relative_to(repository)}: {target}")

    assert followed > 0
    assert broken == []


def test_every_make_target_that_a_page_names_exists(pages, repository):
    targets = set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    named = {}
    for page in pages:
        text = page.read_text()
        code = [*re.findall(r"`+([^`]+)`+", text), *re.findall(r"^(?: {4}|\$ )(.+)$", text, re.MULTILINE)]
        for piece in code:
            for line in piece.splitlines():
                command = line.partition("#")[0]
                named |= dict.fromkeys(re.findall(r"(?:^|&& )\s*make ([a-z]+)", command), page.name)

    assert {"demo", "test", "setup", "ci"} <= named.keys()
    assert {name: page for name, page in named.items() if name not in targets} == {}


def test_every_make_target_is_explained_by_make_help(repository):
    makefile = (repository / "Makefile").read_text()

    (phony,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    explained = re.findall(r"^([a-z]+):.*## \S", makefile, re.MULTILINE)

    assert sorted(explained) == sorted(phony.split())
