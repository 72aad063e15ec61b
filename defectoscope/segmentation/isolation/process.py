"""One decoding process as its parent sees it: started when it is first asked, ended when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from defectoscope.errors.images import DecoderUnavailable, ImageDecodeTimeout
from defectoscope.segmentation.image_file import DecodeLimits
from defectoscope.segmentation.isolation.shared import share

_MODULE = "defectoscope.segmentation.isolation"
_MAX_MESSAGE_BYTES = 64 * 2**10
#: Until a process has imported its libraries; on a busy machine that takes a while.
_START_TIMEOUT_S = 60.0


class ProcessDied(Exception):
    """The process ended, or said what makes no sense, while it had a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What a decoding process may use; the operating system enforces it.

    Attributes:
        timeout_s: seconds for one file, of time and of computing.
        memory_bytes: of address space, libraries included.
    """

    timeout_s: float = 30.0
    memory_bytes: int = 4 * 2**30


class DecoderProcess:
    """A process that decodes one file at a time. Its user sees to it that one thread has it at a time."""

    def __init__(self, *, limits: DecodeLimits, process_limits: ProcessLimits) -> None:
        self._limits = limits
        self._process_limits = process_limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def ask(self, order: dict[str, Any], data: bytes) -> tuple[dict[str, Any], int | None]:
        """Hand over a file.

        Args:
            order: what to do with it, JSON-ready.
            data: the whole file.

        Returns:
            The answer, and the descriptor of the pixels, which the caller closes; None where there are none.

        Raises:
            ProcessDied: the process is gone; the next call starts another.
            ImageDecodeTimeout: it took too long and was ended.
            DecoderUnavailable: it cannot be started.
        """
        connection = self._connection or self._start()
        descriptor = share(data)
        try:
            socket.send_fds(connection, [json.dumps(order).encode()], [descriptor])
            message, descriptors, _, _ = socket.recv_fds(connection, _MAX_MESSAGE_BYTES, 1)
            answer: dict[str, Any] = json.loads(message)
        except TimeoutError as exc:
            self.end()
            raise ImageDecodeTimeout(timeout_s=self._process_limits.timeout_s) from exc
        except (OSError, ValueError) as exc:
            # An end of file is an empty message, and so no JSON.
            self.end()
            raise ProcessDied from exc
        finally:
            os.close(descriptor)
        return answer, descriptors[0] if descriptors else None

    def end(self) -> None:
        """Kill the process, if there is one; it holds nothing that would be lost."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limits = {
            "max_bytes": self._limits.max_bytes,
            "max_pixels": self._limits.max_pixels,
            "memory_bytes": self._process_limits.memory_bytes,
            "timeout_s": self._process_limits.timeout_s,
        }
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 -- our own interpreter and module
                [sys.executable, "-m", _MODULE, str(theirs.fileno()), json.dumps(limits)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
            )
        self._connection = ours
        ours.settimeout(_START_TIMEOUT_S)
        with contextlib.suppress(OSError):
            if ours.recv(_MAX_MESSAGE_BYTES):
                ours.settimeout(self._process_limits.timeout_s)
                return ours
        self.end()
        raise DecoderUnavailable


def _environment() -> dict[str, str]:
    """Return ours without what is no business of a file from outside, and with one thread for each library."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEFECTOSCOPE_")}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
