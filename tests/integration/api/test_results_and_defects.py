from __future__ import annotations

import pytest

from defectoscope.segmentation import decode_mask


def test_a_result_says_what_was_found_and_by_what(client, inspected, walk, model, bucket):
    job_id, images = inspected

    results = walk("/v1/results", job=job_id, limit=2)

    first = results[0]
    assert len(results) == 4
    assert first["image"] == images["a.png"]
    assert (first["verdict"], first["defect_count"], first["defect_px"]) == ("defective", 2, 60)
    assert first["defect_fraction"] == pytest.approx(60 / (first["image"]["width"] * first["image"]["height"]))
    assert (first["resize_policy"], first["tile_count"], first["model_scale"]) == ("tile", 6, 1.0)
    assert (first["model_version"], first["threshold"], first["min_area_px"], first["mm_per_px"]) == (
        model,
        0.4,
        16,
        0.5,
    )
    assert first["mask_uri"].startswith(f"s3://{bucket}/")
    assert client.get(f"/v1/results/{first['id']}").json() == first


def test_results_are_chosen_by_image_and_verdict(inspected, walk):
    job_id, images = inspected

    clean = walk("/v1/results", job=job_id, verdict="clean")
    of_image = walk("/v1/results", image=images["b.png"]["id"])

    assert [result["image"]["id"] for result in clean] == [images["c.png"]["id"]]
    assert [result["image"]["id"] for result in of_image] == [images["b.png"]["id"]]
    assert walk("/v1/results", job=999) == []


def test_masks_and_overlays_are_attachments(client, inspected, walk):
    job_id, images = inspected
    result, _, clean, _ = walk("/v1/results", job=job_id)

    mask = client.get(f"/v1/results/{result['id']}/mask")
    overlay = client.get(f"/v1/results/{result['id']}/overlay")
    missing = client.get(f"/v1/results/{clean['id']}/overlay")

    assert (mask.headers["Content-Type"], overlay.headers["Content-Type"]) == ("image/png", "image/jpeg")
    assert decode_mask(mask.content).shape == (images["a.png"]["height"], images["a.png"]["width"])
    assert overlay.content == b"overlay of a.png"
    assert mask.headers["Content-Disposition"].startswith("attachment")
    assert (result["has_overlay"], clean["has_overlay"], clean["overlay_uri"]) == (True, False, None)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "object_not_found")


@pytest.mark.parametrize("path", ["/v1/results/999", "/v1/results/999/mask", "/v1/results/999/overlay"])
def test_an_unknown_result_is_not_found(client, path):
    answer = client.get(path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "result_not_found")


def test_a_defect_carries_its_measures_and_where_it_was_found(inspected, walk, model):
    job_id, images = inspected

    first = walk("/v1/defects", job=job_id)[0]

    assert (first["image_id"], first["image_sha256"]) == (images["a.png"]["id"], images["a.png"]["sha256"])
    assert (first["image_name"], first["source_uri"]) == ("a.png", images["a.png"]["uri"])
    assert (first["model_version"], first["number"]) == (model, 1)
    assert (first["area_px"], first["area_mm2"]) == (40, 10.0)
    assert (first["box_xyxy"], first["centroid_xy"]) == ([1, 2, 11, 6], [5.5, 4.0])


@pytest.mark.parametrize(
    ("wanted", "areas_px"),
    [
        pytest.param({}, [40, 20, 40, 30], id="all"),
        pytest.param({"min_area_px": 30}, [40, 40, 30], id="large ones"),
        pytest.param({"min_probability": 0.35}, [40, 40], id="certain ones"),
        pytest.param({"model_version": 1}, [40, 20, 40, 30], id="of the version"),
        pytest.param({"model_version": 2}, [], id="of another version"),
        pytest.param({"job": 999}, [], id="of another job"),
        pytest.param({"order": "area"}, [40, 40, 30, 20], id="largest first"),
        pytest.param({"order": "area", "min_area_px": 21}, [40, 40, 30], id="the largest of the large"),
    ],
)
def test_defects_are_chosen_ordered_and_walked_once(inspected, walk, wanted, areas_px):
    defects = walk("/v1/defects", **wanted)
    one_by_one = walk("/v1/defects", limit=1, **wanted)
    in_pages = walk("/v1/defects", limit=3, **wanted)

    assert [defect["area_px"] for defect in defects] == areas_px
    assert one_by_one == in_pages == defects


def test_defects_are_chosen_by_image_and_result(inspected, walk):
    _, images = inspected
    [result] = walk("/v1/results", image=images["b.png"]["id"])

    of_image = walk("/v1/defects", image=images["b.png"]["id"])
    of_result = walk("/v1/defects", result=result["id"])

    assert [defect["area_px"] for defect in of_image] == [40]
    assert of_result == of_image


@pytest.mark.parametrize(
    ("order", "cursor"), [pytest.param("area", "41", id="area"), pytest.param("id", "40-41", id="id")]
)
def test_a_cursor_is_good_for_its_own_order_only(client, order, cursor):
    answer = client.get("/v1/defects", params={"order": order, "cursor": cursor})

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
