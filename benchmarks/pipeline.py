"""The worker path, from the first claim to the last commit, against `session.run` on ready tensors.

Same model file, same threads, same batch size, the same images; the two take turns, so that a noisy machine disturbs
both. The servers run on the same machine, as in every deployment of one node.
"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import psycopg
import sqlalchemy
import torch
from PIL import Image
from sqlalchemy import select

from defectoscope.connect import open_database, s3_config
from defectoscope.database import Chunk, Database
from defectoscope.database.migrate import upgrade
from defectoscope.embedded.stack import Connections
from defectoscope.inspection.params import JobParams, Overlays
from defectoscope.inspection.sources import ExplicitImages, SourceImage
from defectoscope.inspection.submission import JobRequest, submit_job
from defectoscope.queue import MemoryQueue
from defectoscope.registry import VariantFile, find_version, promote_first, publish
from defectoscope.samples import draw_sample
from defectoscope.segmentation import ModelContract, UInt8Array, decode_image, to_model_input
from defectoscope.settings import Settings
from defectoscope.storage import S3Uri, content_key, open_s3, put_content
from trainer.config import TrainingConfig
from trainer.export import export_onnx, stamp
from trainer.network import build_network
from worker.engine import EngineOptions, OnnxEngine
from worker.inspector import Inspector

BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network and a size of images."""

    name: str
    encoder: str
    size_wh: tuple[int, int]


CASES = (
    Case(name="MobileNetV2 fp32, 512x512 JPEG", encoder="mobilenet_v2", size_wh=(512, 512)),
    Case(name="ResNet101 fp32, 512x512 JPEG", encoder="resnet101", size_wh=(512, 512)),
    Case(name="ResNet101 fp32, 1920x1080 JPEG", encoder="resnet101", size_wh=(1920, 1080)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Seconds of each repeat, in order; the n-th of each list belong together."""

    case: str
    images: int
    bare_s: list[float]
    worker_s: list[float]
    overhead_cpu_s: list[float]


def measure(case: Case, *, connections: Connections, scratch: Path, images: int, repeats: int) -> Measurement:
    """Run a case.

    Args:
        case: what.
        connections: running servers; a database of its own is made on them.
        scratch: a directory that does not exist yet.
        images: images in each job, all different.
        repeats: how often the two take turns.
    """
    scratch.mkdir(parents=True)
    settings = _settings(connections, scratch)
    database = open_database(settings)
    model_path, version_id = _publish_model(case, settings, database, scratch)
    files = [_draw_jpeg(number, case.size_wh) for number in range(images)]
    uris = _store(files, settings)
    engine = OnnxEngine(model_path, options=EngineOptions(device="cpu"))
    ready = np.stack([to_model_input(decode_image(data).pixels, contract=engine.contract) for data in files])
    inspector = Inspector(settings)
    bare_s, worker_s, overhead_cpu_s = [], [], []
    _run_bare(engine, ready)
    for repeat in range(repeats + 1):
        cpu_started = process_time()
        bare = _run_bare(engine, ready)
        bare_cpu = process_time() - cpu_started
        chunk_ids = _submit(database, version_id, uris, threshold=0.5 + repeat / 1000)
        cpu_started = process_time()
        worker = _run_worker(inspector, chunk_ids)
        worker_cpu = process_time() - cpu_started
        if repeat:  # The first turn loads and warms.
            bare_s.append(bare)
            worker_s.append(worker)
            overhead_cpu_s.append(worker_cpu - bare_cpu)
    inspector.close()
    database.close()
    return Measurement(case=case.name, images=images, bare_s=bare_s, worker_s=worker_s, overhead_cpu_s=overhead_cpu_s)


def _settings(connections: Connections, scratch: Path) -> Settings:
    url = sqlalchemy.make_url(connections.database_url)
    name = f"bench_{secrets.token_hex(4)}"
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    database_url = url.set(database=name).render_as_string(hide_password=False)
    upgrade(database_url)
    return Settings.model_validate(
        {
            "database": {"url": database_url},
            "queue": {"url": connections.queue_url},
            "storage": {
                "endpoint_url": connections.s3_endpoint_url,
                "access_key": connections.s3_access_key,
                "secret_key": connections.s3_secret_key,
                "bucket": connections.bucket,
            },
            "worker": {"device": "cpu", "batch_size": BATCH_SIZE, "model_cache_dir": scratch / "models"},
        }
    )


def _publish_model(case: Case, settings: Settings, database: Database, scratch: Path) -> tuple[Path, int]:
    """Export a network from a random start: its speed is that of a trained one."""
    config = TrainingConfig(encoder=case.encoder, encoder_weights=None)
    contract = ModelContract(
        input_size_wh=(256, 256),
        resize_policy="stretch",
        threshold=0.5,
        min_area_px=16,
        class_names=("background", "defect"),
        architecture=config.architecture,
        encoder=config.encoder,
        dataset_revision=None,
        version=None,
    )
    path = scratch / "model.onnx"
    # The same weights in every run: ragged masks cost more to measure and encode than smooth ones.
    torch.manual_seed(0)
    export_onnx(build_network(config).network, contract=contract, path=path)

    def build(numbered: ModelContract) -> list[VariantFile]:
        stamp(path, numbered)
        return [VariantFile(precision="fp32", path=path, parity={})]

    number = publish(
        database=database,
        storage=open_s3(s3_config(settings)),
        contract=contract,
        build=build,
        training_run_id=None,
        dataset_revision_id=None,
    )
    promote_first(database=database, number=number, actor="bench")
    with database.transaction() as session:
        return path, find_version(session, number).id


def _draw_jpeg(number: int, size_wh: tuple[int, int]) -> bytes:
    picture = Image.fromarray(draw_sample(seed=0, number=number).pixels).resize(size_wh, Image.Resampling.BICUBIC)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _store(files: list[bytes], settings: Settings) -> list[str]:
    storage = open_s3(s3_config(settings))
    keys = [content_key(put_content(storage, data, content_type="image/jpeg")) for data in files]
    return [str(S3Uri(settings.storage.bucket, key)) for key in keys]


def _submit(database: Database, version_id: int, uris: list[str], *, threshold: float) -> list[int]:
    """Submit a job; another threshold each time, since a repeated one would find its results made already."""
    images = tuple(SourceImage(name=f"{number}.jpg", uri=uri) for number, uri in enumerate(uris))
    request = JobRequest(
        source=ExplicitImages(images=images),
        params=JobParams(threshold=threshold, min_area_px=16, overlays=Overlays.NONE, mm_per_px=None, qa_min_iou=0.5),
        model_version_id=version_id,
    )
    job_id = submit_job(database=database, queue=MemoryQueue(), request=request, chunk_size=16)
    with database.transaction() as session:
        return list(session.scalars(select(Chunk.id).where(Chunk.job_id == job_id).order_by(Chunk.id)))


def _run_worker(inspector: Inspector, chunk_ids: list[int]) -> float:
    started = perf_counter()
    with ThreadPoolExecutor(2) as tasks:
        list(tasks.map(lambda _: inspector.process_next_chunk(), chunk_ids))
    return perf_counter() - started


def _run_bare(engine: OnnxEngine, ready: UInt8Array) -> float:
    started = perf_counter()
    for start in range(0, len(ready), BATCH_SIZE):
        engine(ready[start : start + BATCH_SIZE])
    return perf_counter() - started
