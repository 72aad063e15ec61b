"""Buckets and archives for tests of enumeration."""

from __future__ import annotations

import io
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

from defectoscope.errors.storage import BucketNotFound
from defectoscope.inspection.archives import ArchiveLimits
from defectoscope.inspection.enumeration import enumerate_job
from defectoscope.inspection.sources import Archive, InputBuckets, Manifest, Prefix
from defectoscope.inspection.submission import submit_job
from defectoscope.storage import open_memory

LIMITS = ArchiveLimits(max_members=1000, max_member_bytes=1_000_000, max_total_bytes=10_000_000)
OWN = "own-bucket"


def no_bucket(name):
    raise BucketNotFound(bucket=name)


def memory_buckets(*, others=None, allowed=()):
    """Our own bucket, and others by name, in memory."""
    others = others or {}
    return InputBuckets(
        own_name=OWN,
        own=open_memory(),
        open_bucket=lambda name: others[name] if name in others else no_bucket(name),
        allowed=allowed,
    )


def put_all(storage, keys, *, data=b"x"):
    """Store one small object under each key, several at a time."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: storage.put(key, data, content_type="application/octet-stream"), keys))


def submit_prefix(scene, uri, *, labels_uri=None):
    request = scene.request(Prefix(uri=uri, labels_uri=labels_uri))
    return submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=16)


def submit_archive(scene, buckets, data):
    buckets.own.put("upload.zip", data, content_type="application/zip")
    request = scene.request(Archive(uri=f"s3://{OWN}/upload.zip"))
    return submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=16)


def submit_manifest(scene, buckets, data):
    buckets.own.put("images.csv", data, content_type="text/csv")
    request = scene.request(Manifest(uri=f"s3://{OWN}/images.csv"))
    return submit_job(database=scene.database, queue=scene.queue, request=request, chunk_size=16)


def run_enumeration(scene, buckets, job_id, *, limits=LIMITS, max_manifest_bytes=1_000_000):
    enumerate_job(
        database=scene.database,
        queue=scene.queue,
        buckets=buckets,
        limits=limits,
        max_manifest_bytes=max_manifest_bytes,
        job_id=job_id,
        chunk_size=16,
    )


def make_zip(members, *, method=zipfile.ZIP_DEFLATED):
    """Pack (name or ZipInfo, bytes) pairs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return file.getvalue()


def of_kind(name, mode, data=b"x"):
    """A member with a Unix mode, such as that of a link or a device."""
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info, data


def link(name, target):
    return of_kind(name, 0o120777, target.encode())


def patch_central(data, name, *, offset, value):
    """Overwrite bytes in the central directory entry of a member."""
    entry = data.rindex(name.encode()) - 46
    assert data[entry : entry + 4] == b"PK\x01\x02"
    return data[: entry + offset] + value + data[entry + offset + len(value) :]


def declare_size(data, name, size_bytes):
    """Have the central directory say that a member unpacks to this many bytes."""
    return patch_central(data, name, offset=24, value=struct.pack("<I", size_bytes))


def mark_encrypted(data, name):
    return patch_central(data, name, offset=8, value=struct.pack("<H", 1))
