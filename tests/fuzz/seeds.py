"""The sound inputs that are damaged, and the bombs among them, by kind. Everything is drawn here; no file is kept."""

from __future__ import annotations

import json
import zipfile
from functools import cache

import numpy as np
from PIL import Image

from defectoscope.dataset.formats.brush import encode_brush
from defectoscope.segmentation import encode_class_mask
from tests import bombs
from tests.images import draw_part, encode, encode_frames, encode_turned
from tests.integration.inspection.stores import OWN, link, make_zip, mark_encrypted

PART, TRUTH = draw_part()
GREY = PART[:, :, 0]
DEEP = GREY.astype(np.uint16) * 257


@cache
def seeds_of(kind):
    """Return the sound inputs of a kind, as bytes."""
    return _SEEDS[kind]()


@cache
def bombs_of(kind):
    """Return the hostile inputs of a kind, as bytes; perhaps none."""
    return _BOMBS.get(kind, list)()


def _images():
    alpha = np.dstack([PART, GREY])
    return [
        encode(PART, "PNG"),
        encode(GREY, "PNG"),
        encode(PART, "PNG", mode="P"),
        encode(PART, "PNG", mode="1"),
        encode(GREY, "PNG", mode="LA"),
        encode(alpha, "PNG"),
        encode(DEEP, "PNG"),
        encode_turned(PART, "PNG", orientation=6),
        encode(PART, "JPEG", quality=85),
        encode(PART, "JPEG", progressive=True),
        encode(PART, "JPEG", subsampling=0, restart_marker_blocks=4),
        encode(GREY, "JPEG", optimize=True),
        encode(PART, "JPEG", mode="CMYK"),
        encode_turned(PART, "JPEG", orientation=8),
        encode(PART, "TIFF"),
        encode(PART, "TIFF", compression="tiff_lzw"),
        encode(PART, "TIFF", compression="tiff_adobe_deflate"),
        encode(PART, "TIFF", compression="packbits"),
        encode(PART, "TIFF", compression="jpeg"),
        encode(GREY, "TIFF", mode="1", compression="group4"),
        encode(PART, "TIFF", mode="CMYK"),
        encode(PART, "TIFF", mode="P"),
        encode(DEEP, "TIFF", compression="tiff_lzw"),
        encode(PART, "TIFF", big_tiff=True),
        encode_turned(PART, "TIFF", orientation=5),
        encode(PART, "BMP"),
        encode(PART, "BMP", mode="P"),
        encode(GREY, "BMP", mode="1"),
        bombs.bmp_of_runs(64, 48, runs=b"\x40\x07\0\0", count=48),
        encode(PART, "WEBP"),
        encode(PART, "WEBP", lossless=True),
        encode(alpha, "WEBP"),
        encode_turned(PART, "WEBP", orientation=3),
        encode_frames("PNG"),
        encode_frames("TIFF"),
        encode_frames("WEBP"),
    ]


def _image_bombs():
    return [
        bombs.png_of_chunks(20_000),
        bombs.png_of_empty_pixel_chunks(20_000),
        bombs.png_of_packed_text(90),
        bombs.png_with_profile(20_000_000),
        bombs.png_of_blank_pixels(4000),
        bombs.jpeg_of_scans(90),
        bombs.jpeg_of_scans(2000),
        bombs.jpeg_of_scans(90, width=3000, height=3000),
        bombs.jpeg_with_segments(b"\xff", 200_000),
        bombs.jpeg_with_segments(bombs.jpeg_segment(0xFE, b"\xff\xda"), 3000),
        bombs.tiff_of_tags(4000),
        bombs.tiff_with_long_tag(100_000),
        bombs.tiff_with_tiles(5000, 5000),
        bombs.bmp_of_runs(5000, 5000),
        bombs.bmp_of_runs(5000, 5000, runs=b"\0\0", count=4000),
        bombs.bmp_of_runs(5000, 5000, runs=b"\0\2\xff\xff", count=100),
    ]


def _labels():
    palette = Image.fromarray(TRUTH).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    return [
        encode_class_mask(TRUTH),
        encode(TRUTH * 255, "PNG"),
        encode(TRUTH * 255, "PNG", mode="1"),
        encode(palette, "PNG"),
        encode(TRUTH, "PNG"),
        encode(TRUTH.astype(np.uint16) * 65535, "PNG"),
        encode(TRUTH.astype(np.uint16), "TIFF"),
        encode(TRUTH * 255, "TIFF", mode="1", compression="group4"),
        encode(TRUTH * 255, "BMP"),
        encode(np.dstack([TRUTH * 255] * 3), "PNG"),
        encode(TRUTH * 255, "WEBP", lossless=True),
        encode(TRUTH * 255, "JPEG"),
    ]


def _archives():
    members = [("images/a.png", b"some bytes" * 30), ("labels/a.png", b"other" * 30), ("b.png", bytes(3000))]
    with_comment = make_zip(members)
    return [
        make_zip(members),
        make_zip(members, method=zipfile.ZIP_STORED),
        make_zip(members, method=zipfile.ZIP_BZIP2),
        make_zip([*members, link("evil.png", "/etc/passwd"), ("../up.png", b"x"), ("inner.zip", make_zip(members))]),
        mark_encrypted(make_zip(members), "b.png"),
        with_comment[:-2] + b"\x05\0hello",
        make_zip([(f"{number}.png", b"%d" % number) for number in range(40)]),
    ]


def _archive_bombs():
    bomb = make_zip([(f"{number}.png", bytes(900_000)) for number in range(20)])
    return [bomb, make_zip([("bomb.png", bytes(50_000_000))]), make_zip([("x" * 60_000, b"x")])]


def _manifests():
    address = f"s3://{OWN}/a.png"
    return [
        f"uri\n{address}\ns3://{OWN}/b.png\n".encode(),
        f'name,uri,label_uri\r\nz,{address},\r\n"with ""quotes"", and comma",{address}?,s3://{OWN}/l.png\r\n'.encode(),
        f"\ufeffuri,name\n{address},ä\nhttp://elsewhere/a,b\n".encode(),
        b"uri\n" + b"".join(b"s3://%b/%d.png\n" % (OWN.encode(), number) for number in range(300)),
    ]


def _manifest_bombs():
    return [b"uri\n" + b"x" * 500_000, b'uri\n"' + b"a\n" * 200_000, b"uri" + b"," * 16_000, b"\n" * 500_000]


def _annotations():
    square = [4, 3, 8, 3, 8, 9, 4, 9]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 12}, {"id": 2, "file_name": "b.png"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [square], "bbox": [4, 3, 4, 6]},
            {"id": 2, "image_id": 1, "segmentation": {"size": [12, 16], "counts": [30, 20, 142]}, "iscrowd": 1},
            {"id": 3, "image_id": 2, "segmentation": {"size": [12, 16], "counts": "P2d0l3"}},
        ],
        "categories": [{"id": 1, "name": "scratch"}],
    }
    brush = np.zeros((12, 16), dtype=np.uint8)
    brush[3:9, 4:8] = 1
    size = {"original_width": 16, "original_height": 12, "image_rotation": 0}
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0a1b2c3d-a.png"},
            "annotations": [
                {
                    "id": 1,
                    "updated_at": "2026-11-20T10:00:00Z",
                    "result": [
                        {
                            **size,
                            "type": "polygonlabels",
                            "value": {"points": [[25, 25], [50, 25], [50, 75]], "polygonlabels": ["defect"]},
                        },
                        {
                            **size,
                            "type": "brushlabels",
                            "value": {
                                "format": "rle",
                                "rle": list(encode_brush(brush)),
                                "brushlabels": ["defect"],
                            },
                        },
                    ],
                }
            ],
        }
    ]
    return [json.dumps(coco).encode(), json.dumps(tasks).encode()]


def _models():
    # ONNX Runtime takes more memory than the other kinds may have.
    from onnx import helper  # noqa: PLC0415

    from tests.unit.trainer.foreign_models import HEIGHT, WIDTH, make_foreign  # noqa: PLC0415

    square = make_foreign(
        then=[
            helper.make_node("Shape", ["logits"], ["shape"]),
            helper.make_node("Reshape", ["logits", "shape"], ["output"]),
        ],
        output="output",
    )
    outcome = helper.make_tensor_value_info("chosen", 1, None)
    branch = helper.make_graph([helper.make_node("Neg", ["logits"], ["chosen"])], "branch", [], [outcome])
    choosing = make_foreign(
        then=[helper.make_node("If", ["always"], ["output"], then_branch=branch, else_branch=branch)],
        more_constants=[helper.make_tensor("always", 9, [], [True])],
        output="output",
    )
    return [
        model.SerializeToString()
        for model in (
            make_foreign(),
            make_foreign(channels=1, input_shape=(1, 3, HEIGHT, WIDTH)),
            make_foreign(then=[helper.make_node("Softmax", ["logits"], ["output"], axis=1)], output="output", opset=13),
            square,
            choosing,
        )
    ]


def _model_bombs():
    from onnx import helper  # noqa: PLC0415

    from tests.unit.trainer.foreign_models import float_constant, int_constant, make_foreign  # noqa: PLC0415

    vast = make_foreign(
        then=[
            helper.make_node("ConstantOfShape", ["vast"], ["ones"]),
            helper.make_node("ReduceMax", ["ones"], ["one"], keepdims=0),
            helper.make_node("Add", ["logits", "one"], ["output"]),
        ],
        more_constants=[int_constant("vast", [2**15, 2**13])],
        output="output",
    )
    wide = make_foreign(
        then=[
            helper.make_node("Conv", ["logits", "wide"], ["much"], pads=[200] * 4),
            helper.make_node("ReduceMax", ["much"], ["output"], axes=[1], keepdims=1),
        ],
        more_constants=[float_constant("wide", np.ones((64, 2, 1, 1)))],
        output="output",
    )
    return [vast.SerializeToString(), wide.SerializeToString()]


_SEEDS = {
    "images": _images,
    "isolated": _images,
    "labels": _labels,
    "archives": _archives,
    "manifests": _manifests,
    "annotations": _annotations,
    "models": _models,
}
_BOMBS = {
    "images": _image_bombs,
    "isolated": _image_bombs,
    "labels": _image_bombs,
    "archives": _archive_bombs,
    "manifests": _manifest_bombs,
    "models": _model_bombs,
}
