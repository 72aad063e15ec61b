"""The kinds of input that a campaign knows: what draws one, what takes it, and how much memory that may need."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.fuzz import targets

GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of input.

    Attributes:
        draw: makes an input from a random generator.
        open: gives the function that takes one; it is given the settings of the servers.
        memory_bytes: address space of the process that runs it, libraries included.
        share: of the inputs of a whole campaign.
    """

    draw: Callable[[Any], Any]
    open: Callable[[Any], AbstractContextManager[Callable[[Any], str]]]
    memory_bytes: int
    share: float


def _of_bytes(kind, take, *, share, memory_bytes=2 * GIB):
    return Kind(
        draw=lambda rng: targets.draw_bytes(kind, rng),
        open=lambda _settings: take(),
        memory_bytes=memory_bytes,
        share=share,
    )


def _requests(settings):
    # The application is imported where it is needed: the other kinds run in less memory than it takes.
    from tests.fuzz.requests import requests  # noqa: PLC0415

    return requests(settings)


@contextmanager
def _faults():
    """Fails in every way that a campaign must notice; its inputs say which."""

    def run(data):
        if data == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if data == "hang":
            time.sleep(3600)
        if data == "greed":
            return str(len(bytearray(64 * GIB)))
        if data == "no name":
            raise KeyError(data)
        if data == "violation":
            raise targets.Violation("as asked")
        return "ok"

    yield run


#: What `_faults` does now and then, and what a campaign must say of it.
FAULTS = ("ok", "crash", "ok", "hang", "ok", "greed", "no name", "violation", "ok")

KINDS = {
    "images": _of_bytes("images", targets.images, share=0.45),
    "isolated": _of_bytes("isolated", targets.isolated, share=0.03),
    "labels": _of_bytes("labels", targets.labels, share=0.2),
    "archives": _of_bytes("archives", targets.archives, share=0.08),
    "manifests": _of_bytes("manifests", targets.manifests, share=0.06),
    "annotations": Kind(
        draw=lambda rng: targets.draw_document("annotations", rng),
        open=lambda _settings: targets.annotations(),
        memory_bytes=2 * GIB,
        share=0.06,
    ),
    "models": _of_bytes("models", targets.models, share=0.03, memory_bytes=12 * GIB),
    # The request is drawn where the schema is known.
    "requests": Kind(draw=lambda rng: rng, open=_requests, memory_bytes=4 * GIB, share=0.09),
}

#: Not part of a campaign: shows that one notices what it must.
SELF_TEST = Kind(draw=lambda rng: rng, open=lambda _settings: _faults(), memory_bytes=2 * GIB, share=0)
