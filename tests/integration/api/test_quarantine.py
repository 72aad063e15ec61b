from __future__ import annotations

import pytest

from defectoscope.database import QuarantinedImage


@pytest.fixture
def quarantined(services):
    with services.database.transaction() as session:
        for number in range(3):
            session.add(QuarantinedImage(source_uri=f"s3://line/{number}.png", name=f"{number}.png"))
            session.flush()


@pytest.mark.usefixtures("quarantined")
def test_the_quarantine_is_listed_latest_first_page_by_page(client):
    first = client.get("/v1/quarantine", params={"limit": 2}).json()
    second = client.get("/v1/quarantine", params={"limit": 2, "cursor": first["next_cursor"]}).json()

    assert [image["name"] for image in first["items"] + second["items"]] == ["2.png", "1.png", "0.png"]
    assert second["next_cursor"] is None


@pytest.mark.usefixtures("quarantined")
def test_an_image_is_let_out_once(client):
    (image, *_) = client.get("/v1/quarantine").json()["items"]

    released = client.post(f"/v1/quarantine/{image['id']}/release")
    again = client.post(f"/v1/quarantine/{image['id']}/release")

    assert (released.status_code, released.json()) == (200, image)
    assert (again.status_code, again.json()["error"]["code"]) == (404, "quarantined_image_not_found")
    assert image["id"] not in {left["id"] for left in client.get("/v1/quarantine").json()["items"]}
