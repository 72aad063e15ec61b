from __future__ import annotations

import pytest

from tests.integration.inspection.scene import Scene, add_model_version


@pytest.fixture
def scene(database, queue) -> Scene:
    return Scene(database=database, queue=queue, model_version_id=add_model_version(database))
