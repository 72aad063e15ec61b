"""Stores masks under their content: equal masks are one object, as all clean images of one size have."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from time import monotonic

from defectoscope.storage import Storage

#: How many masks are remembered as stored: the clean ones of a few sizes of images. And for how long: well under any
#: time after which an object that nothing refers to is collected.
_REMEMBERED = 64
_REMEMBERED_S = 600.0


class StoredMasks:
    """Writes masks, each once while it is remembered."""

    def __init__(self, storage: Storage) -> None:
        """Args: storage: where they go."""
        self._storage = storage
        self._stored_at: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def put(self, mask_png: bytes) -> tuple[str, str]:
        """Store a mask.

        Args:
            mask_png: from `encode_mask`.

        Returns:
            Its SHA-256 and its object key.

        Raises:
            StorageUnavailable: try again later.
        """
        sha256 = hashlib.sha256(mask_png).hexdigest()
        key = f"masks/{sha256[:2]}/{sha256}.png"
        if not self._is_remembered(sha256):
            self._storage.put(key, mask_png, content_type="image/png")
            self._remember(sha256)
        return sha256, key

    def _is_remembered(self, sha256: str) -> bool:
        with self._lock:
            stored_at = self._stored_at.get(sha256)
            if stored_at is None or monotonic() - stored_at > _REMEMBERED_S:
                return False
            self._stored_at.move_to_end(sha256)
            return True

    def _remember(self, sha256: str) -> None:
        with self._lock:
            self._stored_at[sha256] = monotonic()
            self._stored_at.move_to_end(sha256)
            while len(self._stored_at) > _REMEMBERED:
                self._stored_at.popitem(last=False)
