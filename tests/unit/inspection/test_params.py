from __future__ import annotations

import dataclasses

from defectoscope.inspection.params import JobParams, Overlays

PARAMS = JobParams(threshold=0.5, min_area_px=16, overlays=Overlays.DEFECTIVE, mm_per_px=None, qa_min_iou=0.5)


def test_results_from_before_jobs_had_a_resize_policy_are_still_found():
    assert PARAMS.result_sha256 == "8fa9c60d3b7e88045dc9900fecbc19965440972ae0067f4d9803378ffdd85d4b"


def test_another_resize_policy_gives_other_results():
    hashes = {
        dataclasses.replace(PARAMS, resize_policy=policy).result_sha256
        for policy in (None, "stretch", "letterbox", "tile")
    }

    assert len(hashes) == 4


def test_the_resize_policy_survives_the_way_through_the_database():
    for params in (PARAMS, dataclasses.replace(PARAMS, resize_policy="tile")):
        assert JobParams.from_json(params.to_json()) == params


def test_params_of_an_old_job_leave_the_resize_policy_to_the_model():
    stored = {"threshold": 0.5, "min_area_px": 16, "overlays": "defective", "mm_per_px": None, "qa_min_iou": 0.5}

    assert JobParams.from_json(stored) == PARAMS
