"""Images and labels."""

from __future__ import annotations

from defectoscope.errors import CallerError, NotNow


class InvalidImage(CallerError):
    """The file cannot be used as an image."""


class ImageEmpty(InvalidImage):
    """The file is empty."""


class ImageNotRecognised(InvalidImage):
    """The file is not an image of an accepted format (PNG, JPEG, TIFF, BMP, WebP)."""


class ImageTruncated(InvalidImage):
    """The image data ends early or is damaged."""


class ImageTooLarge(InvalidImage):
    """The image has more pixels or bytes than the limit allows."""


class ImageTooComplex(InvalidImage):
    """The file has more parts than any honest one, and would only keep the decoder busy."""


class ImageMultiFrame(InvalidImage):
    """The file holds several frames (animation or multi-page); send one image per file."""


class ImageDecodeTimeout(InvalidImage):
    """Decoding the file took longer than one image may take."""


class ImageDecoderDied(InvalidImage):
    """The process that decoded the file died of it, twice; the file is damaged or hostile, or memory is short."""


class DecoderUnavailable(NotNow):
    """No process that decodes files can be started; memory may be short."""


class InvalidLabel(CallerError):
    """The label cannot be used as a defect mask."""


class LabelSizeMismatch(InvalidLabel):
    """The label and its image differ in size."""


class LabelValuesUnknown(InvalidLabel):
    """The label holds values other than 0 (background), 1 (defect) and 255 (ignored)."""


class PolygonInvalid(InvalidLabel):
    """A polygon of the label has fewer than three points, or coordinates that are no places in the image."""


class RunLengthsInvalid(InvalidLabel):
    """A run-length encoded region of the label does not fit the image's size or cannot be read."""


class RegionKindUnknown(InvalidLabel):
    """The label has a region that is neither polygon nor brush, and so no mask."""


class SourceChanged(CallerError):
    """The object changed in storage after it was registered."""
