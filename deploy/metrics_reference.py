# ruff: noqa: INP001 - a script beside the deployment, no package
"""Writes `docs/metrics.md` from the metrics themselves: ``python deploy/metrics_reference.py > docs/metrics.md``.

It stands outside the packages because it needs all three applications, and none of them may know another.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

import api.metrics
import trainer.figures
import trainer.metrics
import worker.metrics
from defectoscope.metrics.database import DATABASE_UP
from defectoscope.metrics.families import Family
from defectoscope.metrics.gpu import TOTAL, USED
from defectoscope.settings import MetricsSettings

_HEAD = """\
# Metrics

Worker, API and trainer each serve their own figures at `/metrics`, in the format of Prometheus, on a port of their own:

| process | port | setting |
|---|---|---|
{ports}

A port that is in use is no error: the next nine are tried, so that ten workers on one machine each find one, and the
log says which (`metrics.served`). When none can be had, or the port is set to 0, the work goes on without figures. The
server listens on 127.0.0.1 unless `DEFECTOSCOPE_METRICS__HOST` says otherwise, and it asks nobody for credentials: what
it serves are counts and times, no image and no name of one. It is no part of the API, so that whoever may read figures
need not be let into the API for it.

[`deploy/prometheus.yml`](../deploy/prometheus.yml) reads them, [`deploy/alerts.yml`](../deploy/alerts.yml) says when
somebody has to look, and [`deploy/grafana/defectoscope.json`](../deploy/grafana/defectoscope.json) shows them;
`docker compose --profile monitoring up -d` starts all three. Some questions and their answers:

| question | PromQL |
|---|---|
| images a second | `sum(rate(defectoscope_images_total[5m]))` |
| share of the time that the model runs | `rate(defectoscope_lane_busy_seconds_total[5m])` |
| mean fill of a batch | `sum(rate(defectoscope_batch_fill_sum[5m])) / sum(rate(defectoscope_batch_fill_count[5m]))` |
| CPU milliseconds an image, by stage | {cpu_per_image} |
| how long work waits | `max(defectoscope_queue_age_seconds)` |
| workers that are not on the champion | {behind} |

What is read from the database is the same from every API and from every trainer: take `max`, not `sum`. While the
database does not answer, these figures are missing and `defectoscope_database_up` is 0. Every process also serves
`process_*`: its memory, CPU time, open files and start, as the Prometheus client library measures them.

This page is made by `python deploy/metrics_reference.py`; a test compares the two.
"""
_CPU_PER_IMAGE = (
    "`1000 * sum by (stage) (rate(defectoscope_stage_cpu_seconds_total[5m]))"
    " / scalar(sum(rate(defectoscope_images_total[5m])))`"
)
_BEHIND = "`defectoscope_model_version != scalar(max(defectoscope_champion_version))`"

#: End of a name, without that of a counter, and the unit it stands for; the first that fits.
_UNITS = {
    "timestamp_seconds": "s since 1970",
    "seconds": "s",
    "bytes": "bytes",
    "per_second": "1/s",
    "iou": "0 to 1",
    "fill": "0 to 1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A metric as it is documented; ``labels`` holds the values that each label has from the start."""

    name: str
    kind: str
    labels: dict[str, list[str]]
    meaning: str

    @property
    def unit(self) -> str:
        """What its figure is measured in; empty for a number of things."""
        stem = self.name.removesuffix("_total")
        return next((unit for ending, unit in _UNITS.items() if stem.endswith(ending)), "")


def describe_all() -> dict[str, list[Described]]:
    """Return the metrics of each application, in the order of its code."""
    gpu = [_read(USED), _read(TOTAL)]
    return {
        "worker": [*_counted(worker.metrics.REGISTRY), *gpu],
        "api": [*_counted(api.metrics.REGISTRY), *map(_read, (DATABASE_UP, *api.metrics.FAMILIES))],
        "trainer": [
            *_counted(trainer.metrics.REGISTRY),
            *map(_read, (DATABASE_UP, *trainer.figures.FAMILIES)),
            *gpu,
        ],
    }


def _read(family: Family) -> Described:
    labels: dict[str, list[str]] = {label: [] for label in family.labels}
    return Described(name=family.name, kind=family.kind, labels=labels, meaning=family.meaning)


def _counted(registry: CollectorRegistry) -> Iterator[Described]:
    for collector in list(registry._collector_to_names):  # noqa: SLF001 -- the library offers no way to the labels
        (metric,) = collector.collect()
        labels: dict[str, list[str]] = {label: [] for label in collector._labelnames}  # type: ignore[attr-defined]  # noqa: SLF001
        for sample in metric.samples:
            for label, values in labels.items():
                if sample.labels[label] not in values:
                    values.append(sample.labels[label])
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield Described(name=name, kind=metric.type, labels=labels, meaning=metric.documentation)


def to_markdown() -> str:
    """Return the page of all metrics."""
    settings = MetricsSettings()
    ports = "\n".join(
        f"| {name} | {getattr(settings, f'{name}_port')} | `DEFECTOSCOPE_METRICS__{name.upper()}_PORT` |"
        for name in ("api", "worker", "trainer")
    )
    head = _HEAD.format(ports=ports, cpu_per_image=_CPU_PER_IMAGE, behind=_BEHIND)
    return head + "".join(_section(name, described) for name, described in describe_all().items())


def _section(name: str, described: Iterable[Described]) -> str:
    rows = "".join(
        f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.unit} | {metric.meaning} |\n"
        for metric in described
    )
    return f"\n## {name}\n\n| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n{rows}"


def _labels(metric: Described) -> str:
    return "; ".join(
        f"`{label}`: {', '.join(values)}" if values else f"`{label}`" for label, values in metric.labels.items()
    )


if __name__ == "__main__":
    sys.stdout.write(to_markdown())
