"""The claim, as questions to the database and the bucket after everything has come to rest.

It asks in SQL of its own and shares no query with the product. `read_outcomes` says what came of every image, to be
compared with another run; `find_flaws` names everything that must not be, whatever the images were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy import text

from defectoscope.database import Database
from defectoscope.errors.storage import ObjectNotFound
from defectoscope.storage import Storage

#: Job key and image name.
Owed = tuple[str, str]
#: Everything about an image that is not a time, an id or a name of a machine.
Outcome = tuple[object, ...]

_OUTCOMES = text("""
    SELECT jobs.idempotency_key, job_items.name, job_items.state, job_items.error_code, job_items.label_error_code,
        job_items.verdict, images.sha256, results.mask_sha256, results.defect_px, results.threshold,
        model_versions.number, results.overlay_key, qa_scores.tp, qa_scores.fp, qa_scores.fn, qa_scores.tn,
        (SELECT md5(string_agg(
            row(number, x_min, y_min, x_max, y_max, area_px, area_mm2, centroid_x, centroid_y, major_axis_px,
                minor_axis_px, orientation_deg, perimeter_px, max_probability, mean_probability, touches_border)::text,
            ',' ORDER BY number)) FROM defects WHERE defects.result_id = results.id) AS defects
    FROM job_items JOIN jobs ON jobs.id = job_items.job_id
        JOIN model_versions ON model_versions.id = jobs.model_version_id
        LEFT JOIN images ON images.id = job_items.image_id
        LEFT JOIN results ON results.id = job_items.result_id
        LEFT JOIN qa_scores ON qa_scores.result_id = results.id AND qa_scores.label_id = job_items.label_id
""")

#: What must not be found, and how to count it.
_FLAWS = {
    "jobs that did not end": "SELECT count(*) FROM jobs WHERE state IN ('pending', 'running')",
    "images that did not end": "SELECT count(*) FROM job_items WHERE state = 'pending'",
    "chunks that did not end": "SELECT count(*) FROM chunks WHERE state IN ('pending', 'running')",
    "chunks still held": "SELECT count(*) FROM chunks WHERE lease_owner IS NOT NULL",
    "jobs made twice": "SELECT count(*) - count(DISTINCT idempotency_key) FROM jobs",
    "images entered twice": "SELECT count(*) - count(DISTINCT (job_id, name)) FROM job_items",
    "results made twice": "SELECT count(*) - count(DISTINCT (image_id, model_version_id, params_sha256)) FROM results",
    "results without the defects they count": """
        SELECT count(*) FROM results
        WHERE defect_count <> (SELECT count(*) FROM defects WHERE result_id = results.id)""",
    "defects written twice": "SELECT count(*) - count(DISTINCT (result_id, number)) FROM defects",
    "ends without a result or an error": """
        SELECT count(*) FROM job_items WHERE (state = 'succeeded' AND (result_id IS NULL OR error_code IS NOT NULL))
            OR (state = 'failed' AND (result_id IS NOT NULL OR error_code IS NULL))""",
    "results of another model than the job's": """
        SELECT count(*) FROM job_items JOIN jobs ON jobs.id = job_id JOIN results ON results.id = result_id
        WHERE results.model_version_id <> jobs.model_version_id""",
    "results of another image than the item's": """
        SELECT count(*) FROM job_items JOIN results ON results.id = result_id
        WHERE results.image_id IS DISTINCT FROM job_items.image_id""",
    "labels without a score": """
        SELECT count(*) FROM job_items LEFT JOIN qa_scores USING (result_id, label_id)
        WHERE label_uri IS NOT NULL AND state = 'succeeded' AND label_error_code IS NULL AND qa_scores.tp IS NULL""",
    "jobs whose totals do not add up": """
        SELECT count(*) FROM jobs JOIN (
            SELECT job_id, count(*) FILTER (WHERE state = 'pending') AS pending,
                count(*) FILTER (WHERE state = 'succeeded') AS succeeded,
                count(*) FILTER (WHERE state = 'failed') AS failed,
                count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
                count(*) FILTER (WHERE verdict = 'defective') AS defective,
                count(*) FILTER (WHERE label_error_code IS NOT NULL) AS label_errors,
                count(qa_scores.tp) AS scored, coalesce(sum(tp), 0) AS tp, coalesce(sum(fp), 0) AS fp,
                coalesce(sum(fn), 0) AS fn, coalesce(sum(tn), 0) AS tn,
                coalesce(sum(coalesce(tp::numeric / nullif(tp + fp + fn, 0), 1)) FILTER (WHERE tp IS NOT NULL), 0)
                    AS iou_defect
            FROM job_items LEFT JOIN qa_scores USING (result_id, label_id) GROUP BY job_id
        ) AS counted ON counted.job_id = jobs.id
        WHERE (pending_images, succeeded_images, failed_images, cancelled_images, defective_images, jobs.label_errors,
            scored_images, jobs.tp, jobs.fp, jobs.fn, jobs.tn, iou_defect_sum)
            IS DISTINCT FROM (pending, succeeded, failed, cancelled, defective, counted.label_errors,
            scored, counted.tp, counted.fp, counted.fn, counted.tn, iou_defect)""",
    "jobs whose defects do not add up": """
        SELECT count(*) FROM jobs WHERE defects <> (
            SELECT coalesce(sum(defect_count), 0) FROM results
            WHERE id IN (SELECT result_id FROM job_items WHERE job_id = jobs.id))""",
    "jobs that ended otherwise than their images": """
        SELECT count(*) FROM jobs WHERE cancel_requested_at IS NULL AND error_code IS NULL AND state <> CASE
            WHEN succeeded_images = 0 THEN 'failed' WHEN failed_images + label_errors > 0 THEN 'partial'
            ELSE 'succeeded' END""",
}
_MASKS = text("SELECT DISTINCT mask_key, mask_sha256 FROM results")

#: Flaws that mean that something was done twice.
_DOUBLED = ("jobs made twice", "images entered twice", "results made twice", "defects written twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a run has to answer for.

    Attributes:
        accepted: images of accepted jobs.
        lost: of them, those without an end, without their row, or whose mask is not in the bucket.
        doubled: rows that say the same thing a second time.
        different: images that ended otherwise than without faults.
        flaws: everything else that must not be, with how often it is.
        orphans: masks in the bucket that no result refers to; a collection deletes them later.
    """

    accepted: int
    lost: tuple[Owed, ...]
    doubled: int
    different: tuple[Owed, ...]
    flaws: Mapping[str, int]
    orphans: int

    @property
    def is_kept(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.doubled or self.different or self.flaws)


def read_outcomes(database: Database) -> dict[Owed, Outcome]:
    with database.transaction() as session:
        return {(row[0], row[1]): tuple(row[2:]) for row in session.execute(_OUTCOMES)}


def find_flaws(database: Database) -> dict[str, int]:
    with database.transaction() as session:
        counts = {name: session.execute(text(query)).scalar_one() for name, query in _FLAWS.items()}
    return {name: count for name, count in counts.items() if count}


def find_missing_masks(database: Database, storage: Storage) -> set[str]:
    """SHA-256 of masks that rows speak of and the bucket does not hold, or holds with other bytes."""
    with database.transaction() as session:
        masks = dict(map(tuple, session.execute(_MASKS)))

    def is_whole(key: str) -> bool:
        try:
            return hashlib.sha256(storage.get(key)).hexdigest() == masks[key]
        except ObjectNotFound:
            return False

    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(masks, pool.map(is_whole, masks), strict=True))
    return {masks[key] for key, whole in found.items() if not whole}


def count_orphans(database: Database, storage: Storage) -> int:
    with database.transaction() as session:
        referred_to = {key for key, _ in session.execute(_MASKS)}
    return sum(info.key not in referred_to for info in storage.list("masks/"))


def judge(database: Database, storage: Storage, *, owed: Iterable[Owed], expected: Mapping[Owed, Outcome]) -> Verdict:
    """Hold a run against what it owed.

    Args:
        database: of the run, at rest.
        storage: of the run.
        owed: every image of every accepted job.
        expected: what came of each without faults.
    """
    owed = sorted(owed)
    outcomes, flaws = read_outcomes(database), find_flaws(database)
    missing = find_missing_masks(database, storage)
    lost = [
        image
        for image in owed
        if image not in outcomes or outcomes[image][0] == "pending" or outcomes[image][5] in missing
    ]
    different = [image for image in owed if image not in lost and outcomes[image] != expected[image]]
    extra = len(outcomes.keys() - set(owed))
    return Verdict(
        accepted=len(owed),
        lost=tuple(lost),
        doubled=extra + sum(flaws.pop(name, 0) for name in _DOUBLED),
        different=tuple(different),
        flaws=flaws,
        orphans=count_orphans(database, storage),
    )
