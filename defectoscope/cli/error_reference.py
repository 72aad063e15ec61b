"""Writes `docs/errors.md` from the classes: ``python -m defectoscope.cli.error_reference > docs/errors.md``."""

from __future__ import annotations

import sys

from defectoscope.errors import AccessDenied, CallerError, Conflict, DefectoscopeError, Fault, NotFound, NotNow
from defectoscope.errors.catalogue import descendants

_HEAD = """\
# Errors

Every error has a stable code for programs and one sentence for people; a more exact sentence stands in place of the one
below where more is known. The API answers `{"error": {"code": …, "message": …}}`, the command line prints the sentence
with the code in brackets, and an image that failed keeps both with its result. The branch says who can help: the
caller, time, or us. One code is the API's own: `method_not_allowed`, for an address that does not take the method.

This page is made by `python -m defectoscope.cli.error_reference`; a test compares the two.
"""

#: The branches in the order of the page, narrower ones after the one they belong to.
BRANCHES: tuple[type[DefectoscopeError], ...] = (CallerError, NotFound, Conflict, AccessDenied, NotNow, Fault)


def sentence(error: type[DefectoscopeError]) -> str:
    """Return the default message."""
    return " ".join((error.__doc__ or "").split())


def branch_of(error: type[DefectoscopeError]) -> type[DefectoscopeError]:
    """Return the narrowest branch an error belongs to; a branch belongs to itself."""
    return next(ancestor for ancestor in error.__mro__ if ancestor in BRANCHES)


def to_markdown() -> str:
    """Return the page of all errors."""
    return _HEAD + "".join(_section(branch) for branch in BRANCHES)


def _section(branch: type[DefectoscopeError]) -> str:
    parent = branch.__bases__[0]
    belongs = f" A branch of `{parent.code}`." if parent in BRANCHES else ""
    rows = "".join(
        f"| `{error.code}` | {sentence(error)} |\n"
        for error in [branch, *descendants(branch)]
        if branch_of(error) is branch
    )
    return f"\n## {branch.code}\n\n{sentence(branch)}{belongs}\n\n| code | sentence |\n|---|---|\n{rows}"


if __name__ == "__main__":
    sys.stdout.write(to_markdown())
