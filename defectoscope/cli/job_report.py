"""Shows one job: its facts, counts, QA, and its errors grouped by code with examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from rich.text import Text

from defectoscope.cli.moments import format_duration, format_time, seconds_between
from defectoscope.cli.output import Cell, print_facts, print_table, print_title, say, state_text

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import Job, JobItem, JobSummary, Problem, Qa, Scores

FINAL_STATES = frozenset({"succeeded", "partial", "failed", "cancelled"})
_EXAMPLES = 3
#: Errors are grouped from so many images at most; the counts of the job stay exact.
_LOOKED_AT = 1000


@dataclass(slots=True)
class ErrorGroup:
    """Images that failed for one reason."""

    code: str
    message: str
    count: int = 0
    names: list[str] = field(default_factory=list)


def group_errors(problems: Iterable[tuple[str, Problem]]) -> list[ErrorGroup]:
    """Group failures by code, the most frequent first, each with a few names."""
    groups: dict[str, ErrorGroup] = {}
    for name, problem in problems:
        group = groups.setdefault(problem["code"], ErrorGroup(problem["code"], problem["message"]))
        group.count += 1
        if len(group.names) < _EXAMPLES:
            group.names.append(name)
    return sorted(groups.values(), key=lambda group: (-group.count, group.code))


def has_succeeded(job: Job) -> bool:
    """Return whether a job is something to be content with: all images done, and QA passed where there are labels."""
    return job["state"] == "succeeded" and (job["qa"] is None or job["qa"]["passed"])


def job_state_text(job: JobSummary) -> Text:
    """Return the state of a job, and whether it is paused, for people."""
    state = state_text(job["state"])
    return Text.assemble(state, " (paused)") if job["paused"] else state


def print_job(client: Client, job: Job) -> None:
    """Print everything about a job."""
    print_title(f"Job {job['id']}", job_state_text(job), job["name"] or "")
    print_facts(_facts(job), indent=2)
    if job["error"] is not None:
        say()
        say(f"  {job['error']['message']} ({job['error']['code']})", style="bold red")
    if job["qa"] is not None:
        _print_qa(job["qa"])
    if job["images"]["failed"]:
        failed = list(islice(client.jobs.items(job["id"], state="failed"), _LOOKED_AT))
        _print_errors("Images that failed", [(item["name"], item["error"]) for item in failed if item["error"]])
    if job["label_errors"]:
        items = _with_label_error(client.jobs.items(job["id"]), wanted=job["label_errors"])
        _print_errors(
            "Labels that failed", [(item["name"], item["label_error"]) for item in items if item["label_error"]]
        )


def describe_source(job: Job) -> str:
    """Return where the images came from."""
    source = job["source"]
    if source["kind"] == "images":
        return "uploaded images"
    return str(source["uri"]) + (f", labels {source['labels_uri']}" if source.get("labels_uri") else "")


def _facts(job: Job) -> dict[str, Cell]:
    images = job["images"]
    params = job["params"]
    counts = [f"{images[state]} {state}" for state in ("succeeded", "failed", "cancelled", "pending") if images[state]]
    found = "" if job["enumerated"] else " so far; more are being found"
    settings = [
        f"threshold {params['threshold']:g}",
        f"min area {params['min_area_px']} px",
        f"overlays {params['overlays']}",
        *([f"resize {params['resize_policy']}"] if params.get("resize_policy") else []),
        *([f"{params['mm_per_px']:g} mm/px"] if params.get("mm_per_px") else []),
    ]
    took = format_duration(seconds_between(job["created_at"], job["finished_at"]))
    return {
        "source": describe_source(job),
        "priority": job["priority"] if job["priority"] != "normal" else None,
        "model": job["model_version"],
        "settings": ", ".join(settings),
        "submitted": format_time(job["created_at"]),
        "finished": f"{format_time(job['finished_at'])}, after {took}" if took else None,
        "deadline": format_time(job.get("deadline_at")),
        "may fail": None if job.get("max_failed_share") is None else f"{job['max_failed_share']:.0%} of the images",
        "cancel": "requested; the images in work are being finished"
        if job["cancel_requested"] and job["state"] not in FINAL_STATES
        else None,
        "images": f"{images['total']}{found}: {', '.join(counts)}" if counts else f"{images['total']}{found}",
        "defective": f"{job['defective_images']} images with {job['defects']} defects",
    }


def _print_qa(qa: Qa) -> None:
    say()
    verdict = state_text("passed" if qa["passed"] else "failed")
    sentence = f"pooled defect IoU {qa['pooled']['iou_defect']:.3f}, needed {qa['min_iou']:.3f}"
    print_facts({"QA": Text.assemble(verdict, f": {sentence}; {qa['images']} images with labels")}, indent=2)
    mean = qa["mean"]
    print_table(
        {
            "": "left",
            "IoU defect": "right",
            "IoU background": "right",
            "IoU mean": "right",
            "Dice": "right",
            "precision": "right",
            "recall": "right",
        },
        [
            ["pooled", *_scores(qa["pooled"])],
            [
                "per image",
                *_figures([mean["iou_defect"], mean["iou_background"], mean["iou"], mean["dice"]]),
                None,
                None,
            ],
        ],
        empty="",
        indent=2,
    )


def _scores(scores: Scores) -> list[str]:
    return _figures(
        [
            scores["iou_defect"],
            scores["iou_background"],
            scores["iou_mean"],
            scores["dice"],
            scores["precision"],
            scores["recall"],
        ]
    )


def _figures(values: Iterable[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


def _with_label_error(items: Iterable[JobItem], *, wanted: int) -> list[JobItem]:
    found = (item for item in islice(items, _LOOKED_AT) if item["label_error"] is not None)
    return list(islice(found, wanted))


def _print_errors(title: str, problems: Sequence[tuple[str, Problem]]) -> None:
    say()
    say(f"  {title}", style="bold")
    print_table(
        {"count": "right", "code": "left", "what": "left", "for example": "left"},
        [[group.count, group.code, group.message, ", ".join(group.names)] for group in group_errors(problems)],
        empty="No details are known.",
        indent=2,
    )
