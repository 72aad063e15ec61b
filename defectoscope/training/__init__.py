"""Training runs as rows: asked for, claimed by a lease, reported on, ended. The training itself is the trainer's."""

from __future__ import annotations

from defectoscope.training.runs import (
    Checkpoint,
    ClaimedRun,
    add_stage_seconds,
    cancel_run,
    claim_run,
    complete_run,
    fail_run,
    reconcile_runs,
    record_checkpoint,
    record_config,
    record_figures,
    record_metrics,
    record_report,
    release_run,
    report_stage,
    request_training,
)

__all__ = [
    "Checkpoint",
    "ClaimedRun",
    "add_stage_seconds",
    "cancel_run",
    "claim_run",
    "complete_run",
    "fail_run",
    "reconcile_runs",
    "record_checkpoint",
    "record_config",
    "record_figures",
    "record_metrics",
    "record_report",
    "release_run",
    "report_stage",
    "request_training",
]
