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

_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@contextmanager
def prepare(work: Work) -> Iterator[Callable[[], None]]:
    """Build the network with the model's weights; see `benchmarks.peers.steps.Prepare`."""
    torch.set_num_threads(work.threads)
    s3 = open_s3(work)
    network = smp.DeepLabV3Plus(encoder_name=work.encoder, encoder_weights=None, in_channels=3, classes=2)
    network.load_state_dict(load_file(work.weights))
    network.eval()

    def inspect(keys: tuple[str, ...]) -> None:
        for key in keys:
            data = s3.get_object(Bucket=work.bucket, Key=key)["Body"].read()
            image = Image.open(BytesIO(data)).convert("RGB")
            pixels = np.asarray(image.resize(work.size_wh, Image.Resampling.BILINEAR), dtype=np.float32) / 255
            tensor = torch.from_numpy((pixels - _MEAN) / _STD).permute(2, 0, 1).unsqueeze(0)
            with torch.inference_mode():
                probabilities = torch.softmax(network(tensor), dim=1)[:, 1:]
                height, width = image.height, image.width
                enlarged = torch.nn.functional.interpolate(probabilities, size=(height, width), mode="bilinear")
                mask = (enlarged[0, 0] >= work.threshold).numpy()
            png = BytesIO()
            Image.fromarray(mask.astype(np.uint8) * 255).save(png, "PNG")
            s3.put_object(Bucket=work.bucket, Key=work.mask_key(key), Body=png.getvalue(), ContentType="image/png")

    inspect(work.warm_up_keys)
    yield lambda: inspect(work.keys)


if __name__ == "__main__":
    take_part(prepare, packages=("torch", "segmentation-models-pytorch", "pillow", "boto3", "numpy"))
