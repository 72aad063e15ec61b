"""A metric that is read when somebody asks for it, as against one that is counted where the work is done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric by name.

    Attributes:
        name: on the wire; that of a counter ends in ``_total``.
        meaning: one sentence.
        kind: a counter never falls, a gauge may.
        labels: what its series are told apart by.
    """

    name: str
    meaning: str
    kind: Literal["gauge", "counter"] = "gauge"
    labels: tuple[str, ...] = ()

    def metric(self, series: Iterable[tuple[tuple[str, ...], float]] = ()) -> Metric:
        """Return it as the client library writes it.

        Args:
            series: values of the labels, and the figure.
        """
        made: GaugeMetricFamily | CounterMetricFamily
        if self.kind == "counter":
            made = CounterMetricFamily(self.name, self.meaning, labels=self.labels)
        else:
            made = GaugeMetricFamily(self.name, self.meaning, labels=self.labels)
        for values, figure in series:
            made.add_metric(values, figure)
        return made
