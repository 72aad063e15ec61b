"""A bundle in an empty environment: three packages, no Defectoscope, no network, and the masks of the product."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from defectoscope.registry.bundle import write_bundle
from defectoscope.segmentation import INPUT_NAME, OUTPUT_NAME, ModelContract, decode_image, segment
from tests.images import draw_part, encode, encode_turned

CONTRACT = ModelContract(
    input_size_wh=(96, 64),
    resize_policy="stretch",
    threshold=0.45,
    min_area_px=30,
    class_names=("background", "defect"),
    architecture="blurred darkness",
    encoder="none",
    dataset_revision="parts@1",
    version=3,
)
#: What makes a connection of any kind an error, put where Python reads it at its start.
NO_NETWORK = """
import socket

def refuse(*_, **__):
    raise RuntimeError("the bundle asked for the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def write_blurred_darkness(path):
    """A model whose levels are soft at edges: 255 minus the mean of nine pixels and three channels."""
    width, height = CONTRACT.input_size_wh
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", [INPUT_NAME], ["first"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["first"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Pad", ["float", "pads"], ["wider"], mode="edge"),
            helper.make_node("Conv", ["wider", "ones"], ["sums"]),
            helper.make_node("Div", ["sums", "count"], ["means"]),
            helper.make_node("Sub", ["white", "means"], ["darkness"]),
            helper.make_node("Squeeze", ["darkness", "channel"], ["flat"]),
            helper.make_node("Round", ["flat"], ["rounded"]),
            helper.make_node("Cast", ["rounded"], [OUTPUT_NAME], to=TensorProto.UINT8),
        ],
        "blurred_darkness",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, ["N", height, width])],
        [
            numpy_helper.from_array(np.ones((1, 3, 3, 3), dtype=np.float32), "ones"),
            numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64), "pads"),
            numpy_helper.from_array(np.array(27, dtype=np.float32), "count"),
            numpy_helper.from_array(np.array(255, dtype=np.float32), "white"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "channel"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, CONTRACT.to_metadata())
    onnx.save(model, path)
    return path


def write_images(folder):
    """Parts of several sizes and kinds, among them one that is turned, one of 16 bits, and two of one stem."""
    deep = draw_part(height=128, width=192, seed=7)[0][:, :, 0].astype(np.uint16) * 257
    files = {
        "frame.jpg": encode(draw_part(height=300, width=480, seed=1)[0], "JPEG", quality=92),
        "frame.png": encode(draw_part(height=200, width=171, seed=2)[0], "PNG"),
        "line 2/small.png": encode(draw_part(height=31, width=44, seed=3)[0], "PNG"),
        "line 2/tall.webp": encode(draw_part(height=333, width=60, seed=4)[0], "WEBP", lossless=True),
        "line 2/clean.bmp": encode(np.full((64, 96, 3), 200, dtype=np.uint8), "BMP"),
        "turned.jpg": encode_turned(draw_part(height=90, width=240, seed=6)[0], "JPEG", orientation=6),
        "deep.tif": encode(Image.fromarray(deep), "TIFF"),
    }
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "notes.txt").write_text("no image")
    return files


@dataclass
class Unpacked:
    """A bundle that was unpacked, the Python that it was given, and the images it is tried on."""

    directory: Path
    python: Path
    images: Path
    expected: dict[str, np.ndarray]

    def run(self, *arguments):
        return subprocess.run(
            [self.python, self.directory / "predict.py", *arguments],
            cwd=self.images.parent,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundle")
    model_path = write_blurred_darkness(root / "model.onnx")
    with zipfile.ZipFile(write_bundle(root, model_path=model_path, contract=CONTRACT)) as archive:
        archive.extractall(root / "unpacked")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / "venv"], check=True)
    python = root / "venv" / "bin" / "python"
    uv = Path(sys.executable).parent / "uv"
    requirements = root / "unpacked" / "requirements.txt"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "--requirement", requirements], check=True)
    (packages,) = (root / "venv" / "lib").glob("python*/site-packages")
    (packages / "sitecustomize.py").write_text(NO_NETWORK)

    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])

    def engine(batch):
        return session.run([OUTPUT_NAME], {INPUT_NAME: batch})[0]

    expected = {
        name: segment(decode_image(data).pixels, engine=engine, contract=CONTRACT).mask
        for name, data in write_images(root / "images").items()
    }
    return Unpacked(directory=root / "unpacked", python=python, images=root / "images", expected=expected)


def read_mask(data):
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "L")
    return np.asarray(image)


def test_the_environment_is_empty_and_offline(unpacked):
    probe = "import socket; socket.create_connection(('127.0.0.1', 9))"

    listed = subprocess.run(
        [Path(sys.executable).parent / "uv", "pip", "list", "--quiet", "--format", "json", "--python", unpacked.python],
        capture_output=True,
        check=True,
    )
    connected = subprocess.run([unpacked.python, "-c", probe], capture_output=True, text=True, check=False)

    names = {entry["name"] for entry in json.loads(listed.stdout)}
    assert {"numpy", "onnxruntime", "pillow"} <= names
    assert not names & {"defectoscope", "opencv-python-headless", "sqlalchemy", "onnxruntime-gpu", "onnx", "torch"}
    assert "asked for the network" in connected.stderr


def test_a_folder_gets_the_masks_of_the_product(unpacked, tmp_path):
    run = unpacked.run("images", tmp_path / "masks")

    written = {
        path.relative_to(tmp_path / "masks").as_posix(): read_mask(path.read_bytes())
        for path in (tmp_path / "masks").rglob("*.png")
    }
    names = {
        "frame.jpg": "frame.png",
        "frame.png": "frame.png.png",
        "line 2/small.png": "line 2/small.png",
        "line 2/tall.webp": "line 2/tall.png",
        "line 2/clean.bmp": "line 2/clean.png",
        "turned.jpg": "turned.png",
        "deep.tif": "deep.png",
    }
    assert (run.returncode, run.stdout) == (0, "")
    assert written.keys() == set(names.values())
    assert all(np.array_equal(written[names[name]], mask) for name, mask in unpacked.expected.items())
    assert sum(mask.any() for mask in unpacked.expected.values()) == 6
    assert {value for mask in written.values() for value in np.unique(mask).tolist()} == {0, 255}


def test_a_json_file_gets_the_masks_by_file_name(unpacked, tmp_path):
    run = unpacked.run("images", tmp_path / "new" / "masks.json")

    masks = json.loads((tmp_path / "new" / "masks.json").read_text())
    assert run.returncode == 0
    assert masks.keys() == unpacked.expected.keys()
    assert all(
        np.array_equal(read_mask(base64.b64decode(masks[name])), mask) for name, mask in unpacked.expected.items()
    )


def test_a_bad_image_is_named_and_the_others_go_on(unpacked, tmp_path):
    images = tmp_path / "images"
    write_images(images)
    (images / "a broken one.png").write_bytes((images / "frame.png").read_bytes()[:200])
    (images / "empty.jpg").write_bytes(b"")

    run = unpacked.run(images, tmp_path / "masks.json")

    lines = run.stderr.splitlines()
    assert run.returncode == 1
    assert lines[0].startswith("a broken one.png: The PNG data ends early or is damaged")
    assert "empty.jpg: The file is empty." in lines
    assert lines[-1] == "7 of 9 images segmented"
    assert json.loads((tmp_path / "masks.json").read_text()).keys() == unpacked.expected.keys()


def test_one_image_may_be_named(unpacked, tmp_path):
    run = unpacked.run("images/frame.jpg", tmp_path)

    assert run.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["frame.png"]
    assert np.array_equal(read_mask((tmp_path / "frame.png").read_bytes()), unpacked.expected["frame.jpg"])


@pytest.mark.parametrize("place", ["images/nowhere", "unpacked/defectoscope"], ids=["missing", "without-images"])
def test_nothing_to_do_is_said(place, unpacked, tmp_path):
    run = unpacked.run(place, tmp_path / "masks")

    assert run.returncode == 2
    assert run.stderr == f"error: there is no image in {place}\n"
    assert not (tmp_path / "masks").exists()


def test_masks_below_the_images_are_not_taken_for_images(unpacked, tmp_path):
    images = tmp_path / "images"
    write_images(images)

    first = unpacked.run(images, images / "masks")
    second = unpacked.run(images, images / "masks")

    assert first.stderr == second.stderr == "7 of 7 images segmented\n"
