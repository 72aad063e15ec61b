"""What the worker counts: the numbers behind its `/metrics`, kept in a registry of their own.

The objects here are incremented where the work is done. Nothing is served from here and nothing listens;
`defectoscope.metrics` does that. A metric never decides anything: a test or a gate reads the database instead.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: Everything the worker exposes. Not the library's global one, so that one process may hold two applications in tests.
REGISTRY: Final = CollectorRegistry()

#: How an image ends. `known`: an earlier job had the same image, model version and parameters; the model did not run.
IMAGE_OUTCOMES: Final = ("clean", "defective", "known", "failed")

#: How a claim ends. `stopped`: its job was. `lost`: the lease was another's before the result could be written.
#: `postponed`: a server or the GPU was away. `released`: given back by a worker that stops. `broken`: ended in an error
#: that nobody foresaw.
CHUNK_OUTCOMES: Final = ("completed", "stopped", "lost", "postponed", "released", "broken")

#: The way of an image in order; `commit` is one transaction for a whole chunk, `model` one call for a whole batch.
STAGES: Final = ("fetch", "decode", "prepare", "model", "measure", "encode", "upload", "commit")

_STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_FILL_BUCKETS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)

images_total: Final = Counter(
    "defectoscope_images_total", "Images that this worker has finished.", ["outcome"], registry=REGISTRY
)
chunks_total: Final = Counter(
    "defectoscope_chunks_total", "Claims of chunks that have ended.", ["outcome"], registry=REGISTRY
)
stage_seconds: Final = Histogram(
    "defectoscope_stage_seconds",
    "Wall time of one step: of an image, of a batch for `model`, of a chunk for `commit`.",
    ["stage"],
    buckets=_STAGE_BUCKETS_S,
    registry=REGISTRY,
)
stage_cpu_seconds_total: Final = Counter(
    "defectoscope_stage_cpu_seconds_total",
    "CPU time of the thread that did the step; that of the model's own threads is in `process_cpu_seconds_total`.",
    ["stage"],
    registry=REGISTRY,
)
batch_fill: Final = Histogram(
    "defectoscope_batch_fill",
    "Model inputs in a batch, as a share of the batch size.",
    buckets=_FILL_BUCKETS,
    registry=REGISTRY,
)
lane_busy_seconds_total: Final = Counter(
    "defectoscope_lane_busy_seconds_total",
    "Time that the model ran; its rate is the share of time the lane is busy.",
    registry=REGISTRY,
)
lease_losses_total: Final = Counter(
    "defectoscope_lease_losses_total",
    "Chunks whose lease was lost while they were worked on; the work is done again by their new holder.",
    registry=REGISTRY,
)
model_version: Final = Gauge(
    "defectoscope_model_version",
    "Number of the model version that this worker is warm on.",
    ["variant", "provider"],
    registry=REGISTRY,
)
waiting_images: Final = Gauge(
    "defectoscope_waiting_images", "Decoded images that wait for the model.", registry=REGISTRY
)
waiting_bytes: Final = Gauge(
    "defectoscope_waiting_bytes",
    "Memory that the images in work may take, from their fetching to their storing.",
    registry=REGISTRY,
)

# A series that begins at 1 hides its first event from `increase()`, so those that are known begin at 0.
for _outcome in IMAGE_OUTCOMES:
    images_total.labels(_outcome)
for _outcome in CHUNK_OUTCOMES:
    chunks_total.labels(_outcome)
for _stage in STAGES:
    stage_seconds.labels(_stage)
    stage_cpu_seconds_total.labels(_stage)


def show_model_version(number: int, *, variant: str, provider: str) -> None:
    """Say which model version this worker is warm on, in place of the one before it."""
    model_version.clear()
    model_version.labels(variant, provider).set(number)
