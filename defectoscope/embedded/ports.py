"""Free loopback ports, kept from start to start. Reserves nothing: between choice and use another process may come."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from defectoscope.embedded.private_files import write_private
from defectoscope.errors.installation import ServerStartFailed

LOOPBACK = "127.0.0.1"
_HIGHEST_PORT = 65535
_TRIES = 200


def choose_ports(
    remembered_in: Path, names: Sequence[str], *, offsets: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Choose a free port for every name, the ones used last time where they are still free.

    Args:
        remembered_in: A JSON file, name to port; read if it exists, then rewritten.
        names: What needs a port.
        offsets: For some names a distance, > 0, at which a second free port is needed: a server that derives one of
            its ports from another.

    Returns:
        Name to port, in the order of ``names``.

    Raises:
        ServerStartFailed: No free port could be found.
    """
    before = _read(remembered_in)
    chosen: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name in names:
            offset = (offsets or {}).get(name, 0)
            wished = before.get(name)
            for wish in (wished, *([0] * _TRIES)):
                if wish is None:
                    continue
                port = _hold(wish, offset, held)
                if port is not None:
                    chosen[name] = port
                    break
            else:
                raise ServerStartFailed("No free port was found on the loopback address.")
    write_private(remembered_in, json.dumps(chosen))
    return chosen


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with contextlib.ExitStack() as held:
        return _hold(port, 0, held) is not None


def _hold(port: int, offset: int, held: contextlib.ExitStack) -> int | None:
    """Bind ``port`` (0: any) and the one ``offset`` above it until ``held`` closes; None when that is not possible."""
    with contextlib.ExitStack() as attempt:
        try:
            first = attempt.enter_context(_bound_socket(port))
            number = int(first.getsockname()[1])
            if offset:
                if number + offset > _HIGHEST_PORT:
                    return None
                attempt.enter_context(_bound_socket(number + offset))
        except OSError:
            return None
        held.enter_context(attempt.pop_all())
        return number


def _bound_socket(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # The servers set this option too. Without it the connections of the last run, which linger for a minute,
        # would make its port look taken and every restart would move to another address.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
    except OSError:
        listener.close()
        raise
    return listener


def _read(remembered_in: Path) -> dict[str, int]:
    try:
        stored = json.loads(remembered_in.read_text())
    except (OSError, ValueError):
        # A missing or torn file costs new ports, nothing else.
        return {}
    if not isinstance(stored, dict):
        return {}
    return {name: port for name, port in stored.items() if isinstance(port, int) and 0 < port <= _HIGHEST_PORT}
