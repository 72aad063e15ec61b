"""The application without its servers: what is tested here never reaches one."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from defectoscope.settings import Settings

BASE_URL = "http://127.0.0.1:8000"


@pytest.fixture
def app():
    return create_app(Settings(_env_file=None))


@pytest.fixture
def client(app):
    # Not entered: the application does not start, so it opens no connection.
    return TestClient(app, base_url=BASE_URL)
