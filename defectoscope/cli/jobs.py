"""`defectoscope jobs`: submit images, watch what becomes of them, pause, prioritise, cancel, retry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from defectoscope.cli.job_report import FINAL_STATES, has_succeeded, job_state_text, print_job
from defectoscope.cli.job_sources import make_source
from defectoscope.cli.moments import format_duration, format_time, seconds_between
from defectoscope.cli.output import answer, note, print_json, print_json_items, print_table, progress, say, state_text
from defectoscope.cli.session import JsonOption, LimitOption, open_client
from defectoscope.cli.watching import watch_until

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import Job, JobOptions

app = typer.Typer(no_args_is_help=True, help="Submit images, watch what becomes of them, pause, cancel, retry.")

JobId = Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")]
JobState = Literal["pending", "running", "succeeded", "partial", "failed", "cancelled"]
Priority = Literal["low", "normal", "high"]
ItemState = Literal["pending", "succeeded", "failed", "cancelled"]


@app.command()
def submit(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE", help="A directory, a .zip, image files, or s3://bucket/prefix.", show_default=False
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read s3:// addresses, one a line, a label's address after a tab; - is standard input."
        ),
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|s3://…",
            help="A CSV file of any length whose first line is uri,name,label_uri,etag; all but uri may be left out.",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(metavar="DIR|s3://…", help="Where the labels are, when not in labels/ beside images/."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="A name for people.")] = None,
    priority: Annotated[Priority, typer.Option(help="Which jobs this one goes before.")] = "normal",
    model: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Model version; by default the champion.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="P", help="Probability from which a pixel is defect; by default the model's."
        ),
    ] = None,
    min_area: Annotated[
        int | None, typer.Option(min=0, metavar="PX", help="Smaller regions are dropped; by default the model's.")
    ] = None,
    mm_per_px: Annotated[
        float | None, typer.Option(min=0, metavar="MM", help="Scale of the images, for areas in mm².")
    ] = None,
    overlays: Annotated[
        Literal["none", "defective", "all"], typer.Option(help="For which images a picture with the defects is kept.")
    ] = "defective",
    qa_min_iou: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="IOU", help="Pooled defect IoU at which QA passes; by default the setting."),
    ] = None,
    resize_policy: Annotated[
        Literal["stretch", "letterbox", "tile"] | None,
        typer.Option(help="How images come to the model's size; by default as the model was made for."),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="What is not done so long after the submission fails."),
    ] = None,
    max_failed: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SHARE", help="With a larger share of failed images the job stops by itself."
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The same key with the same request gives the same job.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", metavar="", help="Stay until the job has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Submit images as a job; files of this machine are uploaded first, each content once.

    A directory pairs images/a.jpg with labels/a.png; a job with labels is scored against them.
    """
    options: JobOptions = {
        "name": name,
        "priority": priority,
        "model_version": model,
        "threshold": threshold,
        "min_area_px": min_area,
        "overlays": overlays,
        "mm_per_px": mm_per_px,
        "qa_min_iou": qa_min_iou,
        "resize_policy": resize_policy,
        "deadline_s": deadline,
        "max_failed_share": max_failed,
    }
    with open_client() as client:
        source = make_source(client, sources or [], keys=keys, manifest=manifest, labels=labels)
        job = client.jobs.submit(source, options=options, idempotency_key=idempotency_key)
        if watch:
            note(f"Job {job['id']} is submitted to model {job['model_version']}.")
            _watch_and_report(client, job["id"], as_json=as_json)
            return
    if as_json:
        print_json(job)
        return
    images = f"{job['images']['total']} images, " if job["enumerated"] else ""
    say(f"Job {job['id']} is submitted: {images}model {job['model_version']}.")
    note(f"Follow it with `defectoscope jobs watch {job['id']}`.")


@app.command("list")
def list_jobs(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with open_client() as client:
        jobs = client.jobs.list(state=state, limit=limit or None)
        if as_json:
            print_json_items(jobs)
            return
        print_table(
            {
                "job": "right",
                "state": "left",
                "priority": "left",
                "model": "right",
                "submitted": "left",
                "took": "right",
                "name": "left",
            },
            [
                [
                    job["id"],
                    job_state_text(job),
                    job["priority"],
                    job["model_version"],
                    format_time(job["created_at"]),
                    format_duration(seconds_between(job["created_at"], job["finished_at"])),
                    job["name"] or job["source"].get("uri") or "-",
                ]
                for job in jobs
            ],
            empty="There are no jobs.",
        )


@app.command()
def show(job_id: JobId, as_json: JsonOption = False) -> None:
    """Show a job: counts, QA, errors by kind with examples."""
    with open_client() as client:
        job = client.jobs.get(job_id)
        if as_json:
            print_json(job)
        else:
            print_job(client, job)


@app.command()
def watch(job_id: JobId, as_json: JsonOption = False) -> None:
    """Watch a job until it has ended, then show it.

    The exit status is 1 when it failed, in part or as a whole, was cancelled, or did not pass QA.
    """
    with open_client() as client:
        _watch_and_report(client, job_id, as_json=as_json)


@app.command()
def items(
    job_id: JobId,
    state: Annotated[ItemState | None, typer.Option(help="Only images in this state.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the images of a job with their verdicts, scores and errors."""
    with open_client() as client:
        found = client.jobs.items(job_id, state=state, limit=limit or None)
        if as_json:
            print_json_items(found)
            return
        print_table(
            {
                "image": "left",
                "state": "left",
                "verdict": "left",
                "defects": "right",
                "IoU defect": "right",
                "result": "right",
                "problem": "left",
            },
            [
                [
                    item["name"],
                    state_text(item["state"]),
                    state_text(item["verdict"]) if item["verdict"] else None,
                    item["defect_count"],
                    f"{item['qa']['iou_defect']:.3f}" if item["qa"] else None,
                    item["result_id"],
                    "; ".join(
                        f"{problem['message']} ({problem['code']})"
                        for problem in (item["error"], item["label_error"])
                        if problem
                    ),
                ]
                for item in found
            ],
            empty="There are no such images.",
        )


@app.command()
def cancel(job_id: JobId, as_json: JsonOption = False) -> None:
    """Cancel a job: what has not begun is left out, what is done stays."""
    with open_client() as client:
        job = client.jobs.cancel(job_id)
    images = job["images"]
    if job["state"] == "cancelled":
        sentence = f"Job {job_id} is cancelled; {images['succeeded']} of {images['total']} images were done."
    else:
        sentence = f"Job {job_id} is being cancelled; the images in work are finished first."
    answer(job, sentence, as_json=as_json)


@app.command()
def pause(job_id: JobId, as_json: JsonOption = False) -> None:
    """Pause a job: chunks in work are finished, no other is begun until `jobs resume`.

    Its images go on being listed meanwhile. A paused job can be cancelled.
    """
    with open_client() as client:
        job = client.jobs.pause(job_id)
    answer(job, f"Job {job_id} is paused; {job['images']['pending']} images are left.", as_json=as_json)


@app.command()
def resume(job_id: JobId, as_json: JsonOption = False) -> None:
    """Go on with a paused job."""
    with open_client() as client:
        job = client.jobs.resume(job_id)
    answer(job, f"Job {job_id} goes on; {job['images']['pending']} images are left.", as_json=as_json)


@app.command()
def prioritise(
    job_id: JobId,
    priority: Annotated[Priority, typer.Argument(metavar="low|normal|high", help="Which jobs it goes before.")],
    as_json: JsonOption = False,
) -> None:
    """Change the priority of a job: workers take chunks of jobs with a higher one first."""
    with open_client() as client:
        job = client.jobs.prioritise(job_id, priority)
    answer(job, f"Job {job_id} has {priority} priority.", as_json=as_json)


@app.command()
def retry(
    job_id: JobId,
    watch: Annotated[bool, typer.Option("--watch", metavar="", help="Stay until the job has ended.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put the failed images of an ended job to work again; a cancelled job stays as it is.

    A deadline that has passed, and a share of failures that stopped the job, no longer hold.
    """
    with open_client() as client:
        job = client.jobs.retry(job_id)
        if watch:
            _watch_and_report(client, job_id, as_json=as_json)
        else:
            answer(job, f"Job {job_id} is at work again: {job['images']['pending']} images.", as_json=as_json)


def watch_job(client: Client, job_id: int) -> Job:
    """Show a bar until a job has ended, and return it then."""
    with progress(f"Job {job_id}", None) as bar:

        def show_counts(job: Job) -> None:
            images = job["images"]
            detail = [
                f"{job['defects']} defects",
                *([f"{images['failed']} failed"] if images["failed"] else []),
                *(["paused"] if job["paused"] else []),
            ]
            bar.show(
                completed=images["total"] - images["pending"],
                total=images["total"] if job["enumerated"] else None,
                detail=", ".join(detail),
            )

        return watch_until(
            lambda: client.jobs.get(job_id), is_over=lambda job: job["state"] in FINAL_STATES, show=show_counts
        )


def _watch_and_report(client: Client, job_id: int, *, as_json: bool) -> None:
    job = watch_job(client, job_id)
    if as_json:
        print_json(job)
    else:
        print_job(client, job)
    if not has_succeeded(job):
        raise typer.Exit(1)
