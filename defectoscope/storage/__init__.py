"""Object storage: S3, a local directory or memory behind one contract, and the only importer of obstore and boto3.

`contract.py` says what callers may rely on, `open.py` makes a `Storage`, `buckets.py` makes buckets and signed
requests, `content.py` stores by content, `uri.py` reads `s3://` addresses. Nothing here knows images, jobs or models.
"""

from __future__ import annotations

from defectoscope.storage.buckets import Buckets
from defectoscope.storage.content import content_key, hash_file, put_content
from defectoscope.storage.contract import ObjectInfo, Storage
from defectoscope.storage.local_disk import NO_ROOM, is_disk_full, naming_a_full_disk, scratch_directory
from defectoscope.storage.open import S3Config, open_local, open_memory, open_s3
from defectoscope.storage.uri import S3Uri

__all__ = [
    "NO_ROOM",
    "Buckets",
    "ObjectInfo",
    "S3Config",
    "S3Uri",
    "Storage",
    "content_key",
    "hash_file",
    "is_disk_full",
    "naming_a_full_disk",
    "open_local",
    "open_memory",
    "open_s3",
    "put_content",
    "scratch_directory",
]
