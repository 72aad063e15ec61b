"""Training runs as rows: asked for, claimed by a lease, reported on, ended. The training itself is the trainer's."""

from __future__ import annotations

from defectoscope.training.runs import (
    ClaimedRun,
    claim_run,
    complete_run,
    fail_run,
    metrics_of,
    reconcile_runs,
    record_config,
    record_figures,
    record_metrics,
    report_stage,
    request_training,
)

__all__ = [
    "ClaimedRun",
    "claim_run",
    "complete_run",
    "fail_run",
    "metrics_of",
    "reconcile_runs",
    "record_config",
    "record_figures",
    "record_metrics",
    "report_stage",
    "request_training",
]
