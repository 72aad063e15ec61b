"""NVIDIA Triton through pytriton: threads fetch and decode, the server gathers single images into batches.

The server is one Triton process with the model in ONNX Runtime behind it, spoken to over gRPC.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import local
from typing import Any

import numpy as np
from pytriton.client import ModelClient  # type: ignore[import-not-found]
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

from benchmarks.peers.steps import Work, decode, encode, fetch, open_s3, open_session, run_model, store, take_part

_NAME = "defects"
_HOST = "127.0.0.1"
#: A batch that is not full waits this long for more.
_QUEUE_DELAY_US = 10_000


@contextmanager
def prepare(work: Work) -> Iterator[Callable[[], None]]:
    """Start the server; see `benchmarks.peers.steps.Prepare`."""
    width, height = work.size_wh
    session = open_session(work, threads=work.threads)
    s3 = open_s3(work, connections=4 * work.batch_size)

    @batch  # type: ignore[untyped-decorator]
    def infer(image: Any) -> dict[str, Any]:
        return {"defect": run_model(session, image)}

    http_port, grpc_port, metrics_port = _free_ports(3)
    config = TritonConfig(
        http_address=_HOST,
        grpc_address=_HOST,
        metrics_address=_HOST,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    clients = local()

    def inspect_one(key: str) -> None:
        if not hasattr(clients, "model"):
            clients.model = ModelClient(f"grpc://{_HOST}:{grpc_port}", _NAME)
        pixels, size_wh = decode(fetch(s3, work, key), work.size_wh)
        probabilities = clients.model.infer_sample(pixels)["defect"]
        store(s3, work, key, encode(probabilities, size_wh, threshold=work.threshold))

    # Two batches' worth of threads: one batch is in the model while the next one gathers.
    with Triton(config=config) as triton, ThreadPoolExecutor(2 * work.batch_size) as threads:
        triton.bind(
            model_name=_NAME,
            infer_func=infer,
            inputs=[Tensor(name="image", dtype=np.uint8, shape=(height, width, 3))],
            outputs=[Tensor(name="defect", dtype=np.uint8, shape=(height, width))],
            config=ModelConfig(
                max_batch_size=work.batch_size,
                batcher=DynamicBatcher(
                    max_queue_delay_microseconds=_QUEUE_DELAY_US, preferred_batch_size=[work.batch_size]
                ),
            ),
        )
        triton.run()
        list(threads.map(inspect_one, work.warm_up_keys))
        yield lambda: _run_out(threads.map(inspect_one, work.keys))


def _run_out(results: Iterator[None]) -> None:
    for _ in results:
        pass


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server((_HOST, 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    take_part(prepare, packages=("nvidia-pytriton", "onnxruntime", "pillow", "boto3", "numpy"))
