"""Decoding in processes that the operating system holds to their limits and that may be lost.

What decodes pixels is native code, and the files come from anywhere. A process of a small pool takes one file at a
time; where it crashes, eats its memory or does not come to an end, that image gets a named error and the pool a new
process. Files and pixels cross in sealed shared memory. Linux only.
"""

from __future__ import annotations

from defectoscope.segmentation.isolation.pool import IsolatedDecoder
from defectoscope.segmentation.isolation.process import ProcessLimits

__all__ = ["IsolatedDecoder", "ProcessLimits"]
