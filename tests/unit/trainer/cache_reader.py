"""What a process does that shares a cache; a file of its own, so that a spawned process imports little."""

from __future__ import annotations

import hashlib

import numpy as np

from defectoscope.storage import content_key


def read_over_and_over(cache, hashes, seed):
    """Read stored objects in an order of its own, and fail on wrong bytes."""
    for sha256 in np.random.default_rng(seed).choice(hashes, 300).tolist():
        data = cache.read(content_key(sha256), sha256)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(sha256)
