"""How long a chunk rests after a fault: longer each time, up to a bound, and never twice the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The rest after the first fault of a chunk doubles with each further one.

    Attributes:
        first_s: rest after the first fault, seconds; 0 means none, ever.
        longest_s: no rest is longer, seconds.
    """

    first_s: float = 1.0
    longest_s: float = 60.0

    def bound(self) -> dict[str, Any]:
        """Return the parameters that `DELAY` takes."""
        return {"backoff_first_s": self.first_s, "backoff_longest_s": self.longest_s}


#: What is meant where nothing else is said.
BACKOFF: Final = Backoff()

# The rest of a chunk that is held, should this claim end in a fault. Faults are claims that count and times that the
# chunk was postponed: the present claim is the last of them, whichever of the two it will be.
#
# Between half and all of the rest is waited, so that chunks of one outage do not come back together. The chunk and the
# number of its faults decide the share, not a lot: a claim may look at a lost chunk often, and must find the same
# each time. After 20 doublings the longest rest is reached in any case.
DELAY: Final = """
    make_interval(secs =>
        least(:backoff_longest_s, :backoff_first_s * 2 ^ least(chunks.attempts + chunks.postponements - 1, 20))
        * (0.5 + (hashint8(chunks.id * 100 + chunks.attempts + chunks.postponements) & 1023) / 2046.0))
"""
