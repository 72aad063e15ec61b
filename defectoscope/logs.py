"""Structured logs on standard output: one event a line, for people or for collectors, libraries included."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Literal, ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")

#: Chatty at info and of no use to the people who run this.
_QUIET_LIBRARIES = (
    "botocore",
    "urllib3",
    "httpx",
    "httpcore",
    "kombu",
    "amqp",
    "celery.app.trace",
    "celery.beat",
    "celery.worker.strategy",
)


#: What must not be written down whoever writes it: the secret of an API token, and the password in an address. The id
#: of the token and the name of the user stay, so that a person sees whose it was.
_SECRETS = (
    (re.compile(r"(dsk_[0-9]{1,19}_)[0-9A-Za-z]{20,}"), r"\1***"),
    (re.compile(r"""(://[^\s:/@"']*:)[^\s/@"']+(?=@)"""), r"\1***"),
)


def without_secrets(text: str) -> str:
    """Return text with the secrets that can be told by their form replaced by three stars."""
    for pattern, stars in _SECRETS:
        text = pattern.sub(stars, text)
    return text


def carrying(act: Callable[P, T]) -> Callable[P, T]:
    """Return a function that logs as its maker would: with the ids bound here and now, in whatever thread it runs.

    A thread begins without any. What goes to a pool or a thread of its own goes there so::

        pool.submit(carrying(fetch), item)

    It may be called many times and by many threads at once; what one call binds is not seen by another.
    """
    context = copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        # A context can be in use once only, hence the copy for each call.
        return context.copy().run(act, *args, **kwargs)

    return run


def _hide_secrets(_: object, __: str, line: Any) -> str:
    return without_secrets(str(line))


def configure_logs(*, level: str, form: Literal["console", "json"], service: str) -> None:
    """Send the events of this process, and the records of its libraries, to standard output.

    Args:
        level: least level written: debug, info, warning or error.
        form: console for people, json for collectors.
        service: name of this process, in every event.
    """

    def name_service(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor]
    if form == "json":
        shared.append(name_service)
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        render = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(),
                pad_event_to=0,
                # The default shows the local variables of every frame, passwords in addresses among them.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            # Last, so that it sees the whole line: messages of libraries and traces included.
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render, _hide_secrets],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in _QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(logging.WARNING)
