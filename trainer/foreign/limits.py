"""What a foreign model file may weigh, and what its check may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """What a file may weigh; every limit holds before ONNX Runtime sees the file.

    Attributes:
        max_bytes: of the file.
        max_tensor_bytes: of any tensor that the file declares, for a single image.
        max_nodes: operators in the graph, its subgraphs and, once for each call, its functions.
        max_parts: messages of any kind in the file: tensors, attributes, descriptions, facts about them.
        max_attribute_values: values in one attribute, or bytes of its text.
        max_side_px: width and height of the input.
    """

    max_bytes: int = 2**30
    max_tensor_bytes: int = 2**31
    max_nodes: int = 100_000
    max_parts: int = 2_000_000
    max_attribute_values: int = 2**20
    max_side_px: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What the process that checks a file may use; the operating system enforces it.

    Attributes:
        timeout_s: seconds from its start to its end.
        max_memory_bytes: of address space.
    """

    timeout_s: float = 900.0
    max_memory_bytes: int = 8 * 2**30
