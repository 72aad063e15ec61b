from __future__ import annotations


def submit(client, source, *, key=None, **asked):
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/v1/jobs", json={"source": source, **asked}, headers=headers)


def images(bucket, count=1):
    listed = [{"name": f"{n}.png", "uri": f"s3://{bucket}/in/{n}.png"} for n in range(count)]
    return {"kind": "images", "images": listed}


def test_a_job_of_named_images_takes_the_champion_and_its_defaults(client, model, bucket):
    answer = submit(client, images(bucket, 3), name="night shift")

    job = answer.json()
    assert answer.status_code == 201
    assert (job["state"], job["model_version"], job["name"]) == ("running", model, "night shift")
    assert job["source"] == {"kind": "images", "count": 3}
    assert job["images"] == {"total": 3, "pending": 3, "succeeded": 0, "failed": 0, "cancelled": 0}
    assert job["params"] == {
        "threshold": 0.4,
        "min_area_px": 16,
        "overlays": "defective",
        "mm_per_px": None,
        "qa_min_iou": 0.5,
    }
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
