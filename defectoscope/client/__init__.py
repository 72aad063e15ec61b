"""A client of the Defectoscope API over HTTP: plain dictionaries, errors of ours, retries where they are safe."""

from __future__ import annotations

from defectoscope.client.client import Client
from defectoscope.client.uploads import LocalFile, Uploader, read_local_files
from defectoscope.webhooks.signature import verify_webhook

__all__ = ["Client", "LocalFile", "Uploader", "read_local_files", "verify_webhook"]
