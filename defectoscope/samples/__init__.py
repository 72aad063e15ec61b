"""Sample data drawn by rule: industrial textures with defects and their exact masks, for a first try and for tests."""

from __future__ import annotations

from defectoscope.samples.generate import SampleSet, generate_samples
from defectoscope.samples.picture import Sample, draw_sample

__all__ = ["Sample", "SampleSet", "draw_sample", "generate_samples"]
