"""A TCP proxy on the loopback that can be slow, silent, rude or dead, in front of one server.

It runs in the process of the test, on a thread of its own. Clients keep one address whatever happens behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

LOOPBACK = "127.0.0.1"
_PIECE_BYTES = 65536
#: Lets a socket be closed with a reset instead of an orderly end.
_NO_LINGER = struct.pack("ii", 1, 0)
_ERROR_ANSWER = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%s"
)
_ERROR_BODY = b"<Error><Code>InternalError</Code><Message>drawn by the fault proxy</Message></Error>"


class Mode(StrEnum):
    """What happens to the connections."""

    CLEAR = "clear"
    #: Every piece, in either direction, is late.
    LATENCY = "latency"
    #: Nobody listens, and what is connected is reset.
    DOWN = "down"
    #: What is connected is reset, once; new connections are fine.
    RESET = "reset"
    #: Nothing passes while it lasts; afterwards everything arrives.
    BLACK_HOLE = "black hole"
    #: What is connected is never answered again and never closed; new connections are fine.
    HALF_OPEN = "half-open"
    #: Each connection ends after so many bytes of answers.
    TRUNCATE = "truncate"
    #: Every HTTP request is answered with status 500.
    ERRORS = "errors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """A mode and its measure."""

    mode: Mode = Mode.CLEAR
    latency_s: float = 0.0
    after_bytes: int = 0


@dataclass(slots=True, eq=False)
class _Link:
    """One client and its connection to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    is_dead: bool = False
    answered_bytes: int = 0


class FaultProxy:
    """Listens on a free port and passes on to another, as far as it is allowed to."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._disturbance = Disturbance()
        self._links: set[_Link] = set()
        self._handlers: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._began = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name=f"proxy of {target_port}")
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._began.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def disturb(self, disturbance: Disturbance) -> None:
        """Begin with a mode; the one before ends. Returns when it holds."""
        self._await(self._change(disturbance))

    def clear(self) -> None:
        """Pass everything on again."""
        self.disturb(Disturbance())

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()
        await self._listen()
        self._began.set()
        await self._ended.wait()
        await self._close_listener()
        for task in list(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, self.port, backlog=512)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _change(self, disturbance: Disturbance) -> None:
        self._disturbance = disturbance
        if disturbance.mode is Mode.BLACK_HOLE:
            self._flowing.clear()
        else:
            self._flowing.set()
        if disturbance.mode in {Mode.DOWN, Mode.RESET, Mode.ERRORS}:
            for link in list(self._links):
                _reset(link.client)
                _reset(link.server)
        if disturbance.mode is Mode.HALF_OPEN:
            for link in self._links:
                link.is_dead = True
                _reset(link.server)
        if disturbance.mode is Mode.DOWN:
            await self._close_listener()
        elif self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if self._disturbance.mode is Mode.ERRORS:
                    await _answer_errors(reader, writer)
                else:
                    await self._connect(reader, writer)
        finally:
            self._handlers.discard(task)
            _reset(writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(LOOPBACK, self._target_port)
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pass_on(link, reader, to_server, is_answer=False),
                self._pass_on(link, from_server, writer, is_answer=True),
            )
        finally:
            self._links.discard(link)
            _reset(to_server)

    async def _pass_on(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while data := await self._read(link, reader):
            if self._disturbance.mode is Mode.LATENCY:
                await asyncio.sleep(self._disturbance.latency_s)
            await self._flowing.wait()
            if link.is_dead:
                continue
            if is_answer and self._disturbance.mode is Mode.TRUNCATE:
                data = data[: max(0, self._disturbance.after_bytes - link.answered_bytes)]
                link.answered_bytes += len(data)
                if link.answered_bytes >= self._disturbance.after_bytes:
                    writer.write(data)
                    await writer.drain()
                    link.client.close()
                    link.server.close()
                    return
            writer.write(data)
            await writer.drain()
        if not link.is_dead and writer.can_write_eof():
            writer.write_eof()

    async def _read(self, link: _Link, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.read(_PIECE_BYTES)
        except OSError:
            if not link.is_dead:
                raise
            # Our own end of a dead link; the client's end goes on swallowing what is sent.
            return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once, with a reset for whoever still speaks on it."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.fileno() >= 0:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


async def _answer_errors(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, has_body, rest = head.partition(b"content-length:")
    if has_body:
        await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
    is_head = head.startswith(b"head ")
    writer.write(_ERROR_ANSWER % (len(_ERROR_BODY), b"" if is_head else _ERROR_BODY))
    await writer.drain()
    writer.write_eof()
    # Wait for the other side to have read it: a reset would throw the answer away.
    await reader.read()
