"""The loop that a notebook has: PyTorch without a compiler in fp32, Pillow, numpy, one image after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.peers.steps import Work, open_s3, take_part

PACKAGES = ("torch", "segmentation-models-pytorch", "pillow", "boto3", "numpy")
_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@contextmanager
def prepare(work: Work, *, at_once: int = 1) -> Iterator[Callable[[], None]]:
    """Build the network with the model's weights; see `benchmarks.peers.steps.Prepare`.

    Args:
        work: what to do.
        at_once: images in a batch.
    """
    torch.set_num_threads(work.threads)
    s3 = open_s3(work)
    network = smp.DeepLabV3Plus(encoder_name=work.encoder, encoder_weights=None, in_channels=3, classes=2)
    network.load_state_dict(load_file(work.weights))
    network.eval()

    def load(key: str) -> tuple[torch.Tensor, tuple[int, int]]:
        data = s3.get_object(Bucket=work.bucket, Key=key)["Body"].read()
        image = Image.open(BytesIO(data)).convert("RGB")
        pixels = np.asarray(image.resize(work.size_wh, Image.Resampling.BILINEAR), dtype=np.float32) / 255
        return torch.from_numpy((pixels - _MEAN) / _STD).permute(2, 0, 1), image.size

    def save(key: str, probabilities: torch.Tensor, size_wh: tuple[int, int]) -> None:
        enlarged = torch.nn.functional.interpolate(probabilities[None, None], size=size_wh[::-1], mode="bilinear")
        mask = (enlarged[0, 0] >= work.threshold).numpy()
        png = BytesIO()
        Image.fromarray(mask.astype(np.uint8) * 255).save(png, "PNG")
        s3.put_object(Bucket=work.bucket, Key=work.mask_key(key), Body=png.getvalue(), ContentType="image/png")

    def inspect(keys: tuple[str, ...]) -> None:
        for start in range(0, len(keys), at_once):
            batch = keys[start : start + at_once]
            tensors, sizes_wh = zip(*map(load, batch), strict=True)
            with torch.inference_mode():
                probabilities = torch.softmax(network(torch.stack(tensors)), dim=1)[:, 1]
                for key, of_one, size_wh in zip(batch, probabilities, sizes_wh, strict=True):
                    save(key, of_one, size_wh)

    inspect(work.warm_up_keys)
    yield lambda: inspect(work.keys)


if __name__ == "__main__":
    take_part(prepare, packages=PACKAGES)
