from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from defectoscope.database import ItemState, JobState
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.settings import DecodeSettings, InspectionSettings
from defectoscope.storage import content_key
from tests.images import (
    declare_bmp,
    declare_jpeg,
    declare_png,
    declare_tiff,
    declare_webp,
    draw_part,
    encode,
    encode_frames,
    encode_turned,
)
from tests.models import expect_mask
from worker.inspector import Inspector

PIXELS, CLASS_MASK = draw_part(height=256, width=256, seed=1)
GOOD = encode(PIXELS, "PNG")

BAD = {
    "empty.png": (b"", "image_empty"),
    "text.png": (b"no picture at all", "image_not_recognised"),
    "cut.png": (GOOD[: len(GOOD) // 2], "image_truncated"),
    "cut.jpg": (encode(PIXELS, "JPEG")[:-2000], "image_truncated"),
    "animated.gif": (encode_frames("GIF"), "image_not_recognised"),
    "animated.webp": (encode_frames("WEBP"), "image_multi_frame"),
    "pages.tif": (encode_frames("TIFF"), "image_multi_frame"),
    "huge.png": (declare_png(30_000, 30_000), "image_too_large"),
    "huge.jpg": (declare_jpeg(60_000, 60_000), "image_too_large"),
    "huge.bmp": (declare_bmp(30_000, 30_000), "image_too_large"),
    "huge.tif": (declare_tiff(30_000, 30_000), "image_too_large"),
    "huge.webp": (declare_webp(30_000, 30_000), "image_too_large"),
    "zip-by-another-name.png": (b"PK\x03\x04" + bytes(100), "image_not_recognised"),
}


def test_every_bad_image_ends_with_its_own_error_and_the_others_are_done(bench):
    images = {"good-first.png": GOOD, **{name: data for name, (data, _) in BAD.items()}, "good-last.png": GOOD + b"\0"}
    job_id = bench.submit(images, chunk_size=8)

    bench.work(job_id)

    items = bench.items(job_id)
    assert {name: items[name].item.error_code for name in BAD} == {name: code for name, (_, code) in BAD.items()}
    assert all(items[name].item.error_message for name in BAD)
    assert {items[name].item.state for name in ("good-first.png", "good-last.png")} == {ItemState.SUCCEEDED}
    assert bench.job(job_id).state is JobState.PARTIAL


def test_decoding_in_processes_of_their_own_changes_no_outcome(bench, settings):
    images = {"good.png": GOOD, "turned.jpg": encode_turned(PIXELS, "JPEG", orientation=6)}
    images |= {name: data for name, (data, _) in BAD.items()}
    expected = bench.submit(images)
    bench.work(expected)
    isolated = settings.model_copy(update={"decode": DecodeSettings(isolation="process", processes=2)})
    inspector = Inspector(isolated)
    # The same pixels in another file, so that no result is taken from the first job.
    again = {name: data + b"\0" if name in {"good.png", "turned.jpg"} else data for name, data in images.items()}
    job_id = bench.submit(again)

    replace(bench, inspector=inspector).work(job_id)
    inspector.close()

    outcomes, before = bench.items(job_id), bench.items(expected)
    assert {name for name in images if outcomes[name].item.error_code} == set(BAD)
    for name in images:
        assert outcomes[name].item.error_code == before[name].item.error_code
        assert outcomes[name].item.error_message == before[name].item.error_message
        assert (outcomes[name].verdict, outcomes[name].defect_count) == (
            before[name].verdict,
            before[name].defect_count,
        )


def test_a_missing_image_ends_with_its_own_error(bench):
    job_id = bench.submit({"good.png": GOOD, "gone.png": GOOD})
    bench.storage.delete(["in/gone.png"])

    bench.work(job_id)

    items = bench.items(job_id)
    assert items["gone.png"].item.error_code == "object_not_found"
    assert items["good.png"].item.state is ItemState.SUCCEEDED


def test_an_image_that_changed_since_it_was_listed_is_refused(bench):
    bench.storage.put("in/changed.png", b"what was listed", content_type="image/png")
    etag = bench.storage.head("in/changed.png").etag
    bench.storage.put("in/same.png", GOOD, content_type="image/png")
    same = bench.storage.head("in/same.png").etag
    job_id = bench.submit({"changed.png": GOOD, "same.png": GOOD}, etags={"changed.png": etag, "same.png": same})

    bench.work(job_id)

    items = bench.items(job_id)
    assert items["changed.png"].item.error_code == "source_changed"
    assert items["same.png"].item.state is ItemState.SUCCEEDED


def test_bytes_that_are_not_those_of_their_address_in_the_content_store_are_refused(bench):
    key = content_key("ab" * 32)
    bench.storage.put(key, GOOD, content_type="image/png")
    source = ExplicitImages(images=(SourceImage(name="a.png", uri=bench.uri(key)),))

    job_id = bench.submit_source(source)
    bench.work(job_id)

    assert bench.items(job_id)["a.png"].item.error_code == "source_changed"


def test_an_object_above_the_limit_is_refused_and_never_decoded(bench, settings):
    limited = settings.model_copy(update={"inspection": InspectionSettings(max_image_bytes=len(GOOD))})
    inspector = Inspector(limited)
    job_id = bench.submit({"good.png": GOOD, "fat.png": GOOD + bytes(10)})

    inspector.process_next_chunk()
    inspector.close()

    items = bench.items(job_id)
    assert items["good.png"].item.state is ItemState.SUCCEEDED
    assert items["fat.png"].item.error_code == "image_too_large"


@pytest.mark.parametrize(
    ("data", "seen", "mode"),
    [
        pytest.param(
            encode((PIXELS[:, :, 0].astype(np.uint16) * 257), "PNG"),
            np.repeat(PIXELS[:, :, :1], 3, axis=2),
            "I;16",
            id="16-bit-grey",
        ),
        pytest.param(encode(PIXELS[:, :, 0], "PNG"), np.repeat(PIXELS[:, :, :1], 3, axis=2), "L", id="grey"),
        pytest.param(encode(PIXELS, "PNG", mode="RGBA"), PIXELS, "RGBA", id="alpha"),
        pytest.param(encode(PIXELS, "TIFF", mode="CMYK"), PIXELS, "CMYK", id="cmyk"),
        pytest.param(encode(PIXELS, "BMP"), PIXELS, "RGB", id="bmp"),
    ],
)
def test_a_foreign_mode_is_converted_and_its_mask_is_right(bench, data, seen, mode):
    job_id = bench.submit({"a": data})

    bench.work(job_id)

    result, image = bench.results(job_id)["a"]
    assert image.source_mode == mode
    assert np.array_equal(bench.mask(result), expect_mask(seen))


def test_a_palette_image_is_seen_in_its_colours(bench):
    indexes = np.random.default_rng(1).integers(0, 4, (256, 256), dtype=np.uint8)
    colours = np.array([[0, 0, 0], [250, 10, 10], [100, 90, 127], [128, 127, 0]], dtype=np.uint8)
    seen = colours[indexes]
    stored = Image.fromarray(indexes, "L")
    stored.putpalette(colours.tobytes())
    job_id = bench.submit({"a.png": encode(stored, "PNG")})

    bench.work(job_id)

    result, image = bench.results(job_id)["a.png"]
    assert image.source_mode == "P"
    assert np.array_equal(bench.mask(result), expect_mask(seen))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_photograph_gets_an_upright_mask(bench, orientation):
    turns = {3: 2, 6: 3, 8: 1}
    stored = PIXELS
    upright = np.ascontiguousarray(np.rot90(stored, turns[orientation]))
    job_id = bench.submit({"a.png": encode_turned(stored, "PNG", orientation=orientation)})

    bench.work(job_id)

    assert np.array_equal(bench.mask(bench.results(job_id)["a.png"][0]), expect_mask(upright))


def test_a_mask_has_the_size_of_its_image_however_small_or_long(bench):
    images = {
        "dot.png": np.zeros((1, 1, 3), np.uint8),
        "row.png": np.zeros((1, 700, 3), np.uint8),
        "white.png": np.full((300, 500, 3), 255, np.uint8),
    }
    job_id = bench.submit({name: encode(pixels, "PNG") for name, pixels in images.items()})

    bench.work(job_id)

    masks = {name: bench.mask(result) for name, (result, _) in bench.results(job_id).items()}
    assert {name: (mask.shape, int(mask.min()), int(mask.max())) for name, mask in masks.items()} == {
        "dot.png": ((1, 1), 255, 255),
        "row.png": ((1, 700), 255, 255),
        "white.png": ((300, 500), 0, 0),
    }


@pytest.mark.parametrize(
    ("label", "code"),
    [
        pytest.param(encode(np.zeros((255, 256), np.uint8), "PNG"), "label_size_mismatch", id="other-size"),
        pytest.param(b"no picture", "invalid_label", id="not-a-picture"),
        pytest.param(b"", "invalid_label", id="empty"),
    ],
)
def test_a_label_that_cannot_be_used_leaves_the_result_and_makes_the_job_partial(bench, label, code):
    job_id = bench.submit({"a.png": GOOD, "b.png": GOOD}, labels={"a.png": label, "b.png": encode(CLASS_MASK, "PNG")})

    bench.work(job_id)

    items = bench.items(job_id)
    assert (items["a.png"].item.state, items["a.png"].item.label_error_code) == (ItemState.SUCCEEDED, code)
    assert items["a.png"].counts is None
    assert items["b.png"].counts is not None
    assert bench.job(job_id).state is JobState.PARTIAL
    assert bench.view(job_id).label_errors == 1


def test_a_missing_label_is_told(bench):
    job_id = bench.submit({"a.png": GOOD}, labels={"a.png": encode(CLASS_MASK, "PNG")})
    bench.storage.delete(["truth/a.png"])

    bench.work(job_id)

    item = bench.items(job_id)["a.png"].item
    assert (item.state, item.label_error_code) == (ItemState.SUCCEEDED, "object_not_found")
