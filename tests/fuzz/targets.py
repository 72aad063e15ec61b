"""What the damaged inputs are fed to, by kind: draws an input from a seed, and says how it ended.

An outcome is "ok" or the code of a named error. A `Violation` is a broken promise that shows without a crash; a crash,
a hang and too much memory are seen by the campaign from outside.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from defectoscope.dataset.formats import PictureFinder, read_coco, read_label_studio
from defectoscope.errors import CallerError, DefectoscopeError
from defectoscope.inspection.archives import list_archive
from defectoscope.inspection.manifests import list_manifest
from defectoscope.inspection.sources import Archive, Manifest
from defectoscope.segmentation import (
    DecodeLimits,
    DirectDecoder,
    decode_image,
    decode_index_label,
    decode_label,
    decode_quickly,
)
from defectoscope.segmentation.isolation import IsolatedDecoder, ProcessLimits
from tests.fuzz.mutations import mutate, mutate_json, repair_checksums
from tests.fuzz.seeds import PART, bombs_of, seeds_of
from tests.images import encode
from tests.integration.inspection.stores import LIMITS, OWN, memory_buckets

IMAGE_LIMITS = DecodeLimits(max_bytes=64 * 2**20, max_pixels=30_000_000)
_BOMB_SHARE = 0.01
_MODEL_SECONDS = 8
_MODEL_BYTES = 4 * 2**30


class Violation(Exception):
    """An input was answered in a way that is neither a success nor a named error."""


def draw_bytes(kind, rng):
    """Draw a damaged input of a kind; now and then a bomb, sound or damaged."""
    seeds, bombs = seeds_of(kind), bombs_of(kind)
    if bombs and rng.random() < _BOMB_SHARE:
        bomb = rng.choice(bombs)
        return bomb if rng.random() < 0.5 else mutate(rng, bomb, seeds)
    seed = rng.choice(seeds)
    damaged = seed if rng.random() < 0.01 else mutate(rng, seed, seeds)
    return repair_checksums(damaged) if damaged.startswith(b"\x89PNG") and rng.random() < 0.7 else damaged


def outcome_of(action):
    """Return "ok" or the code of the named error that ended an action."""
    try:
        action()
    except DefectoscopeError as error:
        if not isinstance(error, CallerError):
            raise Violation(f"{error.code} blames us for a file: {error.message}") from error
        if not error.message.strip():
            raise Violation(f"{error.code} has no sentence") from error
        return error.code
    return "ok"


@contextmanager
def images():
    """Both ways to decode an image; they agree on the pixels and, but for what `decode_quickly` says, on damage."""

    def run(data):
        decoded = []
        slow = outcome_of(lambda: decoded.append(decode_image(data, limits=IMAGE_LIMITS)))
        quick = outcome_of(lambda: decoded.append(decode_quickly(data, limits=IMAGE_LIMITS)))
        if (slow, quick) == ("image_truncated", "ok") and decoded[0].format == "JPEG":
            # All of its blocks were there, and what follows them is damaged.
            return "ok, damaged behind its pixels"
        if slow != quick:
            raise Violation(f"decode_image says {slow}, decode_quickly {quick}")
        if len(decoded) == 2 and not np.array_equal(decoded[0].pixels, decoded[1].pixels):
            raise Violation("decode_image and decode_quickly differ")
        return slow

    yield run


@contextmanager
def isolated():
    """A decoding process, beside the same in this one."""
    decoder = IsolatedDecoder(limits=IMAGE_LIMITS, processes=1, process_limits=ProcessLimits(memory_bytes=2**31))
    here = DirectDecoder(limits=IMAGE_LIMITS)

    def run(data):
        there = outcome_of(lambda: decoder.open(data).decode())
        if there != (direct := outcome_of(lambda: here.open(data).decode())):
            raise Violation(f"a process of its own says {there}, this one {direct}")
        return there

    yield run
    decoder.close()


@contextmanager
def labels():
    """Both readings of a label; what either gives is a class mask."""

    def run(data):
        for decode in (decode_index_label, decode_label):
            masks = []
            outcome = outcome_of(lambda: masks.append(decode(data, limits=IMAGE_LIMITS)))  # noqa: B023 -- run at once
            if masks and not np.isin(masks[0], (0, 1, 255)).all():
                raise Violation(f"{decode.__name__} gives values that are no classes")
        return outcome

    yield run


@contextmanager
def archives():
    """The listing of a zip archive in storage."""

    def run(data):
        buckets = memory_buckets()
        buckets.own.put("upload.zip", data, content_type="application/zip")
        return outcome_of(
            lambda: _drain(list_archive(Archive(uri=f"s3://{OWN}/upload.zip"), buckets=buckets, limits=LIMITS))
        )

    yield run


@contextmanager
def manifests():
    """The listing of a manifest in storage."""

    def run(data):
        buckets = memory_buckets()
        buckets.own.put("images.csv", data, content_type="text/csv")
        source = Manifest(uri=f"s3://{OWN}/images.csv")
        return outcome_of(lambda: _drain(list_manifest(source, buckets=buckets, max_bytes=1_000_000)))

    yield run


def _drain(pages):
    for page in pages:
        if not all(image.uri or image.error for image in page.images):
            raise Violation("an image has neither an address nor an error")


@contextmanager
def annotations():
    """Both readers of annotation files; what they leave out has a code."""
    with tempfile.TemporaryDirectory(prefix="defectoscope-fuzz-") as scratch:
        files = {}
        for name in ("a.png", "b.png"):
            files[name] = Path(scratch, name)
            files[name].write_bytes(encode(np.ascontiguousarray(PART[:12, :16]), "PNG"))
        document = Path(scratch, "export.json")

        def run(data):
            document.write_bytes(data)
            codes = set()
            for read in (read_coco, read_label_studio):
                findings = list(read({"export.json": document}, pictures=PictureFinder(files)))
                codes |= {getattr(finding, "code", "ok") for finding in findings}
            return "ok" if "ok" in codes else min(codes, default="nothing")

        yield run


@contextmanager
def models():
    """The check of a foreign model, in a process as limited as the one that `trainer.foreign.process` starts.

    That one takes two seconds to start; here a process that has imported everything is doubled for each file.
    """
    from trainer.foreign import FileLimits, ForeignFacts, wrap_foreign  # noqa: PLC0415 -- slow, and of this kind only

    facts = ForeignFacts(architecture="a", encoder="b", size_wh=(40, 24))
    limits = FileLimits(max_tensor_bytes=2**28, max_side_px=256)
    with tempfile.TemporaryDirectory(prefix="defectoscope-fuzz-") as scratch:
        given, made = Path(scratch, "given.onnx"), Path(scratch, "made.onnx")

        def check(answer_to):
            resource.setrlimit(resource.RLIMIT_AS, (_MODEL_BYTES, _MODEL_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            answer = outcome_of(lambda: wrap_foreign(given, out=made, facts=facts, limits=limits))
            os.write(answer_to, answer.encode())

        def run(data):
            given.write_bytes(data)
            answer, answer_to = os.pipe()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    check(answer_to)
                    status = 0
                finally:
                    os._exit(status)
            os.close(answer_to)
            is_done, _, _ = select.select([answer], [], [], _MODEL_SECONDS)
            if not is_done:
                os.kill(pid, signal.SIGKILL)
            text = os.read(answer, 1000).decode() if is_done else "model_check_timeout"
            os.close(answer)
            _, status = os.waitpid(pid, 0)
            if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                raise Violation("the check ended in an exception without a name")
            return text or "model_check_crashed"

        yield run


def draw_document(kind, rng):
    """Draw an annotation file: damaged as JSON, or as bytes."""
    data = rng.choice(seeds_of(kind))
    if rng.random() < 0.8:
        return json.dumps(mutate_json(rng, json.loads(data))).encode()
    return draw_bytes(kind, rng)
