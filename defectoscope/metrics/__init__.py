"""How a process shows its figures to Prometheus: the server, and the figures that it has to ask somebody else for.

What each application counts stands in its own ``metrics.py``. Nothing here decides anything, and no failure here stops
the work: figures that cannot be had are missing.
"""

from __future__ import annotations

from defectoscope.metrics.database import DatabaseFigures, Reading, open_figures
from defectoscope.metrics.exposition import Exposition, serve_metrics
from defectoscope.metrics.families import Family
from defectoscope.metrics.gpu import GpuMemory

__all__ = ["DatabaseFigures", "Exposition", "Family", "GpuMemory", "Reading", "open_figures", "serve_metrics"]
