"""Publishes a model for import 1, as a trainer does at the end of it: ``python -m tests.faults.publish_once``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from defectoscope.connect import open_database, s3_config
from defectoscope.crash_points import arm_crash_point
from defectoscope.registry import VariantFile, publish
from defectoscope.settings import load_settings
from defectoscope.storage import open_s3
from tests.models import CONTRACT, write_dark_is_defect


def main() -> None:
    settings = load_settings()
    arm_crash_point()
    database = open_database(settings)
    with tempfile.TemporaryDirectory() as directory:
        publish(
            database=database,
            storage=open_s3(s3_config(settings)),
            contract=CONTRACT,
            build=lambda numbered: [
                VariantFile(
                    precision="fp32", path=write_dark_is_defect(Path(directory) / "dark.onnx", numbered), parity={}
                )
            ],
            training_run_id=None,
            dataset_revision_id=None,
            import_id=1,
        )
    database.close()


if __name__ == "__main__":
    main()
