"""What a trainer works with, opened from the settings; it holds no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from defectoscope import connect
from defectoscope.database import Database
from defectoscope.registry.gate_rules import GateRules
from defectoscope.settings import Settings
from defectoscope.storage import Storage, open_s3
from trainer.cache import FileCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What a trainer works with.

    Attributes:
        database: where revisions, runs, versions and evaluations are.
        storage: where images are and models go.
        work_dir: scratch; the caches in it stay for the next run.
        cache: images and labels on local disk.
        device: where to train.
        rules: of the gate.
    """

    database: Database
    storage: Storage
    work_dir: Path
    cache: FileCache
    device: Literal["auto", "cpu", "cuda"]
    rules: GateRules

    @classmethod
    def open(cls, settings: Settings, *, database: Database) -> Workplace:
        """Return the workplace that the settings describe; nothing connects yet."""
        s3 = connect.s3_config(settings)
        work_dir = settings.trainer.work_dir
        return cls(
            database=database,
            storage=open_s3(s3),
            work_dir=work_dir,
            cache=FileCache(
                work_dir / "images", max_bytes=settings.trainer.cache_bytes, open_storage=partial(open_s3, s3)
            ),
            device=settings.trainer.device,
            rules=connect.gate_rules(settings),
        )
