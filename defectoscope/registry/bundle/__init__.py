"""Bundles: a model version as one zip that runs offline with onnxruntime, numpy and Pillow alone."""

from __future__ import annotations

from defectoscope.registry.bundle.write import BUNDLE_FILE_NAME, REQUIREMENTS, BundleFacts, write_bundle

__all__ = ["BUNDLE_FILE_NAME", "REQUIREMENTS", "BundleFacts", "write_bundle"]
