from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from api.schemas.datasets import DatasetIn
from api.schemas.jobs import JobIn
from api.schemas.labels import LabelsIn
from api.schemas.training_runs import TrainingRunIn
from api.schemas.uploads import UploadsIn

PREFIX = {"kind": "prefix", "uri": "s3://line-3/images"}
HASH = "ab" * 32


def job(**changes):
    return {"source": PREFIX, **changes}


def named(*names):
    return {"kind": "images", "images": [{"name": name, "uri": "s3://line-3/a.png"} for name in names]}


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        pytest.param(JobIn, {}, id="a job of nothing"),
        pytest.param(JobIn, job(source={"kind": "folder", "uri": "s3://line-3/a"}), id="an unknown kind of source"),
        pytest.param(JobIn, job(threshold=0), id="a threshold that everything reaches"),
        pytest.param(JobIn, job(threshold=1.01), id="a threshold that nothing reaches"),
        pytest.param(JobIn, job(threshold=float("nan")), id="a threshold that is no number"),
        pytest.param(JobIn, job(min_area_px=-1), id="a negative area"),
        pytest.param(JobIn, job(mm_per_px=float("inf")), id="an endless pixel"),
        pytest.param(JobIn, job(overlays="some"), id="unknown overlays"),
        pytest.param(JobIn, job(model_version=0), id="a version before the first"),
        pytest.param(JobIn, job(name="a\x00b"), id="a name with NUL"),
        pytest.param(JobIn, job(name="\x1b[2J"), id="a name that clears terminals"),
        pytest.param(JobIn, job(name=""), id="an empty name"),
        pytest.param(JobIn, job(colour="red"), id="an unknown field"),
        pytest.param(JobIn, job(source=named("a.png", "b.png", "a.png")), id="a name twice"),
        pytest.param(JobIn, job(source={**PREFIX, "uri": "http://line-3/images"}), id="an address that is not s3"),
        pytest.param(JobIn, job(source={**PREFIX, "uri": "s3://LINE/images"}), id="a bucket no bucket can be called"),
        pytest.param(JobIn, job(source={**PREFIX, "uri": "s3://line-3/a\nb"}), id="an address of two lines"),
        pytest.param(UploadsIn, {"objects": []}, id="no upload"),
        pytest.param(
            UploadsIn,
            {"objects": [{"sha256": HASH.upper(), "size_bytes": 1, "content_type": "image/png"}]},
            id="a hash in capitals",
        ),
        pytest.param(
            UploadsIn,
            {"objects": [{"sha256": HASH, "size_bytes": -1, "content_type": "image/png"}]},
            id="an upload of less than nothing",
        ),
        pytest.param(
            UploadsIn,
            {"objects": [{"sha256": HASH, "size_bytes": 1, "content_type": "image/png\r\nX-Evil: 1"}]},
            id="a media type that splits headers",
        ),
        pytest.param(LabelsIn, {"source": "dataset:steel", "entries": []}, id="no label"),
        pytest.param(DatasetIn, {"name": "steel", "entries": []}, id="an empty dataset"),
        pytest.param(
            DatasetIn,
            {"name": "steel@2", "entries": [{"label_id": 1, "name": "a", "split": "val"}]},
            id="a dataset called like a revision",
        ),
        pytest.param(
            DatasetIn,
            {"name": "steel", "entries": [{"label_id": n, "name": "a", "split": "val"} for n in (1, 2)]},
            id="two images of one name",
        ),
        pytest.param(
            DatasetIn, {"name": "steel", "entries": [{"label_id": 1, "name": "a", "split": "test"}]}, id="a third side"
        ),
        pytest.param(TrainingRunIn, {"dataset": "steel", "config": {"Epochs!": 3}}, id="a key that is no word"),
        pytest.param(TrainingRunIn, {"dataset": "steel", "config": {"epochs": {"a": 1}}}, id="a nested recipe"),
        pytest.param(TrainingRunIn, {"dataset": "steel", "config": {"rate": float("nan")}}, id="a rate that is none"),
        pytest.param(TrainingRunIn, {"dataset": "steel", "config": {"encoder": "a\x00"}}, id="a value with NUL"),
        pytest.param(TrainingRunIn, {"dataset": "steel", "config": {"seed": 10**400}}, id="a number beyond all use"),
    ],
)
def test_a_bad_body_is_refused(schema, body):
    with pytest.raises(ValidationError):
        schema.model_validate(body)


def test_lone_surrogates_are_refused():
    with pytest.raises(ValidationError):
        JobIn.model_validate(json.loads('{"name": "\\ud800", "source": {"kind": "prefix", "uri": "s3://line-3/a"}}'))


def test_the_names_that_stand_twice_are_listed():
    with pytest.raises(ValidationError, match=r"twice: a\.png, b\.png"):
        JobIn.model_validate(job(source=named("b.png", "a.png", "c.png", "a.png", "b.png")))


def test_a_recipe_keeps_the_types_it_was_given():
    asked = {"preset": "quick", "epochs": 8, "learning_rate": 0.5, "channels_last": False, "input_size_wh": [256, 128]}

    recipe = TrainingRunIn.model_validate({"dataset": "steel@2", "config": asked}).config

    assert recipe == asked
    assert [type(value) for value in recipe.values()] == [str, int, float, bool, list]


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("s3://line-3", id="a whole bucket"),
        pytest.param("s3://line-3/", id="its root"),
        pytest.param("s3://line-3/Über Nacht/a%20b.png", id="any text that is a key"),
    ],
)
def test_an_address_in_storage_is_taken(uri):
    assert JobIn.model_validate(job(source={**PREFIX, "uri": uri})).source.uri == uri
