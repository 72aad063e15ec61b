"""What must be true of the rows at any moment, whatever happened before."""

from __future__ import annotations

from collections import Counter

from tests.integration.ownership.world import FINAL, OWED


def check_order(rows, ended_items):
    """Hold all rows against each other, and against how images had ended when they were looked at before.

    Images that ended since are added to ``ended_items``.
    """
    items_of = {job["id"]: [item for item in rows["job_items"] if item["job_id"] == job["id"]] for job in rows["jobs"]}
    owed = {row["id"]: row["job_id"] for row in rows["chunks"] if row["state"] in OWED}
    for job in rows["jobs"]:
        _totals_are_what_counting_gives(job, items_of[job["id"]], rows["results"])
        has_ended = job["state"] in FINAL
        assert has_ended == (job["id"] not in owed.values()), "a job has ended wrongly, or not at all"
    for item in rows["job_items"]:
        _ends_once_and_in_one_way(item, ended_items)
        assert item["state"] != "pending" or item["chunk_id"] in owed, "an image was lost"
    keys = Counter((row["image_id"], row["model_version_id"], row["params_sha256"]) for row in rows["results"])
    assert all(count == 1 for count in keys.values()), "a result is there twice"
    assert len(rows["defects"]) == sum(row["defect_count"] for row in rows["results"]), "a defect too many, or few"


def _ends_once_and_in_one_way(item, ended_items):
    end = (item["job_id"], item["state"], item["result_id"])
    if item["id"] in ended_items:
        assert ended_items[item["id"]] == end, "an image ended twice"
    elif item["state"] != "pending":
        ended_items[item["id"]] = end
    assert (item["result_id"] is not None) == (item["state"] == "succeeded"), "a result without success"
    assert (item["error_code"] is not None) == (item["state"] == "failed"), "an error without failure"


def _totals_are_what_counting_gives(job, items, results):
    states = Counter(item["state"] for item in items)
    counted = [states[state] for state in ("pending", "succeeded", "failed", "cancelled")]
    kept = [job[f"{state}_images"] for state in ("pending", "succeeded", "failed", "cancelled")]
    assert kept == counted, "totals differ"
    shown = {item["result_id"] for item in items if item["result_id"]}
    assert job["defects"] == sum(row["defect_count"] for row in results if row["id"] in shown), "defects differ"
