"""Every error the product raises on purpose, and nothing else: the trunk here, the leaves by subject beside it.

A class docstring is the default message; ``code`` is stable, snake_case and part of the public contract
(`docs/errors.md` lists them all). No HTTP status lives here: `api/error_handlers.py` maps the branches.

::

    DefectoscopeError
    ├── CallerError             the caller is wrong; trying again unchanged cannot help
    │   ├── NotFound            the thing named does not exist
    │   ├── Conflict            it exists, in a state that does not allow this
    │   └── AccessDenied        the caller may not do this
    ├── NotNow                  a part we depend on is away; the same request may succeed later
    └── Fault                   we are wrong, or the installation is

`catalogue.py` has all of them by code.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar


class DefectoscopeError(Exception):
    """Something went wrong in Defectoscope."""

    code: ClassVar[str] = "defectoscope_error"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Derive ``code`` from the class name unless the class sets its own."""
        super().__init_subclass__(**kwargs)
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, message: str | None = None, **details: Any) -> None:
        """Args: message: one sentence for a person; details: JSON-ready facts for a program."""
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.details = details
        super().__init__(self.message)


class CallerError(DefectoscopeError):
    """The request cannot be met as it stands."""


class NotFound(CallerError):
    """The thing named does not exist."""


class Conflict(CallerError):
    """The present state does not allow this."""


class AccessDenied(CallerError):
    """The caller may not do this."""


class NotNow(DefectoscopeError):
    """A part we depend on is away; try again later."""


class Fault(DefectoscopeError):
    """Defectoscope itself or its installation is at fault."""
