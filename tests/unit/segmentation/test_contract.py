from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectoscope.errors.models import InvalidModel
from defectoscope.segmentation import ModelContract

CONTRACT = ModelContract(
    input_size_wh=(256, 192),
    resize_policy="stretch",
    threshold=0.5,
    min_area_px=16,
    class_names=("background", "defect"),
    architecture="DeepLabV3Plus",
    encoder="resnet101",
    dataset_revision="7f3a",
    version=12,
)

SPOKEN = st.text(min_size=1, max_size=20)


@given(
    contract=st.builds(
        ModelContract,
        input_size_wh=st.tuples(st.integers(64, 8192), st.integers(64, 8192)),
        resize_policy=st.sampled_from(["stretch", "letterbox", "tile"]),
        threshold=st.floats(0, 1, exclude_min=True),
        min_area_px=st.integers(0, 10**9),
        class_names=st.just(("background", "defect")),
        architecture=SPOKEN,
        encoder=SPOKEN,
        dataset_revision=st.none() | SPOKEN,
        version=st.none() | st.integers(1, 10**9),
        tile_overlap_px=st.none() | st.integers(0, 32),
        model_scale=st.none() | st.floats(0.01, 100),
    )
)
def test_a_contract_survives_the_way_through_metadata(contract):
    metadata = contract.to_metadata()

    assert all(isinstance(value, str) for value in metadata.values())
    assert ModelContract.from_metadata(metadata) == contract


def test_the_metadata_is_what_the_file_format_promises():
    assert CONTRACT.to_metadata() == {
        "defectoscope.contract": "1",
        "defectoscope.input_size_wh": "256x192",
        "defectoscope.resize_policy": "stretch",
        "defectoscope.threshold": "0.5",
        "defectoscope.min_area_px": "16",
        "defectoscope.class_names": "background,defect",
        "defectoscope.architecture": "DeepLabV3Plus",
        "defectoscope.encoder": "resnet101",
        "defectoscope.dataset_revision": "7f3a",
        "defectoscope.version": "12",
    }


def test_tiles_are_described_only_where_they_are_known():
    contract = dataclasses.replace(CONTRACT, resize_policy="tile", tile_overlap_px=48, model_scale=0.5)

    added = contract.to_metadata().items() - CONTRACT.to_metadata().items()

    assert dict(added) == {
        "defectoscope.resize_policy": "tile",
        "defectoscope.tile_overlap_px": "48",
        "defectoscope.model_scale": "0.5",
    }


def test_keys_of_others_are_ignored():
    metadata = CONTRACT.to_metadata() | {"producer": "someone", "version": "99"}

    assert ModelContract.from_metadata(metadata) == CONTRACT


@pytest.mark.parametrize(
    "name", sorted(set(CONTRACT.to_metadata()) - {"defectoscope.dataset_revision", "defectoscope.version"})
)
def test_a_missing_key_is_named(name):
    metadata = CONTRACT.to_metadata()
    del metadata[name]

    with pytest.raises(InvalidModel, match=f"lacks the metadata key {name}") as caught:
        ModelContract.from_metadata(metadata)

    assert caught.value.details == {"key": name}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("contract", "2", id="another-schema"),
        pytest.param("input_size_wh", "256", id="one-number"),
        pytest.param("input_size_wh", "256x0", id="zero-height"),
        pytest.param("input_size_wh", "256x-1", id="negative-height"),
        pytest.param("input_size_wh", "256x²", id="a-digit-that-is-no-number"),
        pytest.param("resize_policy", "squeeze", id="unknown-policy"),
        pytest.param("threshold", "half", id="threshold-in-words"),
        pytest.param("threshold", "0", id="threshold-zero"),
        pytest.param("threshold", "1.01", id="threshold-above-one"),
        pytest.param("threshold", "nan", id="threshold-nan"),
        pytest.param("min_area_px", "-1", id="negative-area"),
        pytest.param("min_area_px", "1.5", id="fractional-area"),
        pytest.param("class_names", "defect,background", id="classes-swapped"),
        pytest.param("architecture", "", id="no-architecture"),
        pytest.param("encoder", "", id="no-encoder"),
        pytest.param("dataset_revision", "", id="empty-revision"),
        pytest.param("tile_overlap_px", "97", id="tiles-that-overlap-by-more-than-half"),
        pytest.param("tile_overlap_px", "-1", id="negative-overlap"),
        pytest.param("model_scale", "0", id="scale-zero"),
        pytest.param("model_scale", "inf", id="endless-scale"),
        pytest.param("version", "0", id="version-zero"),
        pytest.param("version", "latest", id="version-in-words"),
    ],
)
def test_a_bad_value_is_named(key, value):
    metadata = CONTRACT.to_metadata() | {f"defectoscope.{key}": value}

    with pytest.raises(InvalidModel, match=rf"^The model's defectoscope\.{key} .+\.$") as caught:
        ModelContract.from_metadata(metadata)

    assert caught.value.details == {"key": f"defectoscope.{key}"}


def test_a_bad_contract_cannot_be_made():
    with pytest.raises(InvalidModel, match=r"defectoscope\.threshold"):
        dataclasses.replace(CONTRACT, threshold=0.0)
