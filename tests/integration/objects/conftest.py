from __future__ import annotations

from datetime import timedelta

import pytest

from defectoscope.objects import collect

#: Whatever was stored before this moment, and a little after it, counts as old.
NO_GRACE = timedelta(minutes=-5)


@pytest.fixture
def collect_now(database, storage, s3):
    """Walk over the bucket and delete everything that nothing points at, however young."""

    def run(**options):
        return collect(
            **{
                "database": database,
                "storage": storage,
                "bucket": s3.bucket,
                "grace": NO_GRACE,
                "owner": "test",
                **options,
            }
        )

    return run
