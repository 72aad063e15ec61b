"""Files far larger than the buffers pass through without filling memory, measured in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import pytest

from defectoscope.storage.open import S3Config

MIB = 1024 * 1024

TRANSFER = """
import json, sys
from pathlib import Path
from defectoscope.storage.open import S3Config, open_local, open_s3

def peak_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

kind, config, directory = json.loads(sys.argv[1])
storage = open_s3(S3Config(**config)) if kind == "s3" else open_local(Path(directory) / "storage")
source, target = Path(directory) / "source.bin", Path(directory) / "target.bin"
storage.put("warm", b"x" * 1000, content_type="application/octet-stream")
storage.get("warm")
before = peak_bytes()
storage.put_file("large", source, content_type="application/octet-stream")
after_upload = peak_bytes()
storage.get_to_file("large", target)
print(json.dumps([after_upload - before, peak_bytes() - before]))
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_file_of_64_mib_passes_through_half_of_that_memory(kind, tmp_path, random_file, request):
    source = random_file(64 * MIB)
    config = request.getfixturevalue("s3_config") if kind == "s3" else None
    arguments = json.dumps([kind, asdict(config) if isinstance(config, S3Config) else None, str(tmp_path)])

    finished = subprocess.run(
        [sys.executable, "-c", TRANSFER, arguments], capture_output=True, text=True, timeout=120, check=True
    )

    upload_bytes, total_bytes = json.loads(finished.stdout)
    assert upload_bytes < 32 * MIB
    assert total_bytes < 32 * MIB
    assert (tmp_path / "target.bin").read_bytes() == source.read_bytes()
