"""One image after another with Pillow and ONNX Runtime: the shortest script that does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.peers.steps import Work, decode, encode, fetch, open_s3, open_session, run_model, store, take_part


@contextmanager
def prepare(work: Work) -> Iterator[Callable[[], None]]:
    """Load the model; see `benchmarks.peers.steps.Prepare`."""
    s3 = open_s3(work)
    session = open_session(work, threads=work.threads)

    def inspect(keys: tuple[str, ...]) -> None:
        for key in keys:
            pixels, size_wh = decode(fetch(s3, work, key), work.size_wh)
            (probabilities,) = run_model(session, pixels[None])
            store(s3, work, key, encode(probabilities, size_wh, threshold=work.threshold))

    inspect(work.warm_up_keys)
    yield lambda: inspect(work.keys)


if __name__ == "__main__":
    take_part(prepare, packages=("onnxruntime", "onnxruntime-gpu", "pillow", "boto3", "numpy"))
