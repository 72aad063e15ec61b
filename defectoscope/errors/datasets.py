"""Datasets, their files and the samples that are drawn."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, NotFound


class SampleDirectoryNotEmpty(Conflict):
    """The directory holds images or labels already; choose another one or empty it."""


class DatasetNotFound(NotFound):
    """There is no dataset there."""


class InvalidDataset(CallerError):
    """The dataset cannot be trained on."""


class AnnotationFileInvalid(CallerError):
    """The file does not hold annotations of a known format."""


class ExportDirectoryNotEmpty(Conflict):
    """The directory for the export holds files already; choose another one or empty it."""
