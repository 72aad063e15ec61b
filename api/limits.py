"""How many requests are answered: a bucket for each token and for each address, in the memory of this process.

Several API processes do not know of each other's buckets, so together they let through that many times as much. All of
it happens in the event loop, so there is nothing to lock.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Keys remembered. Whoever comes from more addresses than this is no matter for a bucket in an API.
_MOST_KEYS: Final = 50_000
#: One customer has at least so many bits of IPv6 to himself.
_IPV6_PREFIX: Final = 64


@dataclass(slots=True)
class _Bucket:
    left: float
    seen_at_s: float


class RateLimit:
    """A bucket for each key: full at first, emptied by requests, refilled steadily.

    Args:
        per_s: requests that a key may send a second for long; 0 for no limit.
        burst: requests that it may send at once.
        clock: monotonic, seconds.
    """

    def __init__(self, *, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Return after how many seconds the next request of a key would be let through; 0 for at once."""
        if not self._per_s:
            return 0.0
        return max(0.0, 1.0 - self._bucket(key).left) / self._per_s

    def take(self, key: str) -> float:
        """Count a request of a key, unless it has to wait.

        Returns:
            Seconds to wait; 0 when it may pass and was counted.
        """
        wait_s = self.wait_s(key)
        if self._per_s and not wait_s:
            self._bucket(key).left -= 1.0
        return wait_s

    def _bucket(self, key: str) -> _Bucket:
        now_s = self._clock()
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _MOST_KEYS:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = _Bucket(self._burst, now_s)
        self._buckets.move_to_end(key)
        bucket.left = min(self._burst, bucket.left + (now_s - bucket.seen_at_s) * self._per_s)
        bucket.seen_at_s = now_s
        return bucket


def origin_of(address: str) -> str:
    """Return what requests of an address are counted under: itself, or the network of one customer for IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:  # noqa: PLR2004 -- IPv4
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))
