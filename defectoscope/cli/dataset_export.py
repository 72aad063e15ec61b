"""Fetches the images and labels of a dataset revision, checks every byte by its hash, and hands them to a writer."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Literal, cast

import httpx

from defectoscope.client.transport import RETRY_PAUSES_S, is_loopback
from defectoscope.dataset.formats import (
    RevisionPicture,
    write_coco,
    write_folder,
    write_label_studio,
    write_parquet,
)
from defectoscope.errors.images import LabelSizeMismatch
from defectoscope.errors.storage import StorageDenied, StorageFault, StorageUnavailable
from defectoscope.segmentation import decode_label

if TYPE_CHECKING:
    from defectoscope.client.wire import DatasetItem
    from defectoscope.dataset.formats import Split

ExportFormat = Literal["folder", "flat", "coco", "label-studio", "parquet"]

#: How the server names the group of a part; other groups are named after an image.
_PART = "part:"
_THREADS = 8
#: Pictures that are fetched ahead of the one being written; more would only fill memory.
_AHEAD = 16


def write(pictures: Iterable[RevisionPicture], out: Path, *, chosen: ExportFormat) -> None:
    """Write pictures in a format.

    Raises:
        ExportDirectoryNotEmpty: there is something at ``out``.
        ComponentMissing: what the format needs is not installed.
        InvalidRequest: it cannot be written.
    """
    if chosen == "coco":
        write_coco(pictures, out)
    elif chosen == "label-studio":
        write_label_studio(pictures, out)
    elif chosen == "parquet":
        write_parquet(pictures, out)
    else:
        write_folder(pictures, out, with_split=chosen == "folder")


def name_groups(items: Iterable[DatasetItem]) -> dict[str, str]:
    """Return the name under which each group of a revision is exported: its part, or its key if it has many images.

    An image that is alone in its group has none: its group says nothing, and imported as a part it would be wrong as
    soon as another image of the part comes.
    """
    sizes = Counter(item["group"] for item in items)
    return {group: group.removeprefix(_PART) for group, size in sizes.items() if group.startswith(_PART) or size > 1}


def fetch_pictures(items: Iterable[DatasetItem], *, groups: Mapping[str, str]) -> Iterator[RevisionPicture]:
    """Fetch the pictures of a revision, some ahead of the one that is asked for, in the order given.

    Args:
        items: of the revision, as the API gives them.
        groups: from `name_groups`.

    Raises:
        StorageUnavailable: the object storage does not answer.
        StorageDenied: it refuses.
        StorageFault: what it gives is not what the revision holds.
    """
    items = iter(items)
    with (
        httpx.Client(timeout=60.0, limits=httpx.Limits(max_connections=_THREADS)) as proxied,
        httpx.Client(timeout=60.0, limits=httpx.Limits(max_connections=_THREADS), trust_env=False) as direct,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool,
        ExitStack() as on_exit,
    ):
        # Also when the writer gives up: what has not begun is not begun any more.
        on_exit.callback(pool.shutdown, wait=False, cancel_futures=True)
        waiting: deque[Future[RevisionPicture]] = deque()
        while True:
            for item in islice(items, _AHEAD - len(waiting)):
                waiting.append(pool.submit(_fetch_picture, item, groups, proxied, direct))
            if not waiting:
                return
            yield waiting.popleft().result()


def _fetch_picture(
    item: DatasetItem, groups: Mapping[str, str], proxied: httpx.Client, direct: httpx.Client
) -> RevisionPicture:
    def fetch(url: str, sha256: str) -> bytes:
        http = direct if is_loopback(httpx.URL(url).host) else proxied
        data = _get(http, url, name=item["name"])
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StorageFault(f"What is stored of {item['name']} is not what the revision holds.", sha256=sha256)
        return data

    image = fetch(item["image_url"], item["image_sha256"])
    label = fetch(item["label_url"], item["label_sha256"])
    class_mask = decode_label(label)
    if class_mask.shape != (item["height"], item["width"]):
        raise LabelSizeMismatch(f"The label and the image of {item['name']} differ in size.")
    return RevisionPicture(
        name=item["name"],
        split=cast("Split", item["split"]),
        group=groups.get(item["group"]),
        image=image,
        class_mask=class_mask,
        image_sha256=item["image_sha256"],
        label_sha256=item["label_sha256"],
    )


def _get(http: httpx.Client, url: str, *, name: str) -> bytes:
    pauses = iter(RETRY_PAUSES_S)
    while True:
        try:
            response = http.get(url)
        except httpx.TransportError as exc:
            problem = f"the connection failed ({exc})" if str(exc) else "the connection failed"
        else:
            if response.is_success:
                return response.content
            if response.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise StorageDenied(f"The object storage refuses {name} (status {response.status_code}).")
            if response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise StorageFault(f"The object storage answered {response.status_code} to {name}.")
            problem = f"it answered {response.status_code}"
        pause_s = next(pauses, None)
        if pause_s is None:
            raise StorageUnavailable(f"The object storage did not give {name}: {problem}.")
        sleep(pause_s)
