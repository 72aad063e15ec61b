from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from defectoscope.cli.dataset_export import fetch_pictures, name_groups
from defectoscope.errors.images import LabelSizeMismatch
from defectoscope.errors.storage import StorageDenied, StorageFault
from defectoscope.segmentation import encode_class_mask
from tests.images import draw_part, encode
from tests.unit.dataset.formats.drawing import draw_class_mask

CLASS_MASK = draw_class_mask()
LABEL = encode_class_mask(CLASS_MASK)
COUNT = 40
IMAGES = {f"/{n}.png": encode(draw_part(height=20, width=30, seed=n)[0], "PNG") for n in range(COUNT)}


class _Store(BaseHTTPRequestHandler):
    """Gives each image, the label, and refusals by number."""

    def do_GET(self):
        body = LABEL if self.path == "/label" else IMAGES.get(self.path)
        self.send_response(200 if body is not None else int(self.path.lstrip("/")))
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_arguments):
        """Be quiet."""


@pytest.fixture(scope="module")
def store():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Store)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def item(store, number, **changes):
    path = f"/{number}.png"
    return {
        "name": path.lstrip("/"),
        "split": "train",
        "group": f"part:{number}",
        "width": 30,
        "height": 20,
        "image_sha256": hashlib.sha256(IMAGES[path]).hexdigest(),
        "label_sha256": hashlib.sha256(LABEL).hexdigest(),
        "image_url": store + path,
        "label_url": f"{store}/label",
    } | changes


def test_pictures_come_in_their_order_with_their_bytes(store):
    items = [item(store, number) for number in range(COUNT)]

    pictures = list(fetch_pictures(items, groups={"part:3": "tile 3"}))

    assert [picture.image for picture in pictures] == list(IMAGES.values())
    assert [picture.group for picture in pictures[2:5]] == [None, "tile 3", None]
    np.testing.assert_array_equal(pictures[-1].class_mask, CLASS_MASK)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"image_sha256": "0" * 64}, StorageFault, id="other-image"),
        pytest.param({"label_sha256": "0" * 64}, StorageFault, id="other-label"),
        pytest.param({"image_url": "403"}, StorageDenied, id="refused"),
        pytest.param({"image_url": "404"}, StorageFault, id="gone"),
        pytest.param({"width": 31}, LabelSizeMismatch, id="other-size"),
    ],
)
def test_what_is_not_as_the_revision_says_ends_the_export(store, changes, error):
    changes = {key: f"{store}/{value}" if key.endswith("url") else value for key, value in changes.items()}
    items = [item(store, 0), item(store, 1, **changes), item(store, 2)]

    pictures = fetch_pictures(items, groups={})

    assert next(pictures).name == "0.png"
    with pytest.raises(error):
        next(pictures)


def test_a_group_is_named_by_its_part_or_when_it_has_many_images():
    groups = ["part:tile 1", "image:aa", "image:bb", "image:bb"]

    assert name_groups([{"group": group} for group in groups]) == {"part:tile 1": "tile 1", "image:bb": "image:bb"}
