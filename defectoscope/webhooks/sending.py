"""Sends one signed body to one address: resolved once, connected to what was resolved, over before a deadline.

It follows no redirect, uses no proxy, and reads nothing of the answer but its status and headers.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpcore

from defectoscope.errors.installation import SettingMissing
from defectoscope.errors.webhooks import WebhookDeliveryFailed
from defectoscope.webhooks.addresses import AddressRules, IpAddress, Resolver, Target, resolve, resolve_by_system

#: Of a reason that goes into the database.
_REASON_LENGTH = 300
_SECONDS = re.compile(rb"[0-9]{1,9}")


class Sender:
    """Sends to webhooks under one set of rules. Usable from several threads; it keeps no connection."""

    def __init__(
        self,
        *,
        rules: AddressRules,
        timeout_s: float,
        ca_file: Path | None = None,
        resolver: Resolver = resolve_by_system,
    ) -> None:
        """Prepare TLS.

        Args:
            rules: where it may send.
            timeout_s: for a whole attempt, from connecting to the status; resolving comes before.
            ca_file: certificates, PEM, that are trusted beside those of the system.
            resolver: from names to addresses.

        Raises:
            SettingMissing: the file with the certificates cannot be read.
        """
        self._rules = rules
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            try:
                self._tls.load_verify_locations(ca_file)
            except OSError as exc:
                raise SettingMissing(f"DEFECTOSCOPE_WEBHOOKS__CA_FILE cannot be read: {exc}.") from exc

    def check(self, url: str) -> None:
        """Refuse an address that nothing could be sent to, now.

        Raises:
            WebhookAddressRefused: the rules forbid it, or its name does not resolve.
        """
        resolve(Target.read(url, self._rules), self._rules, self._resolver)

    def send(self, url: str, *, body: bytes, headers: Mapping[str, str]) -> int:
        """POST a body.

        Args:
            url: of the webhook; judged again, since its name may stand for something else by now.
            body: JSON.
            headers: those of the signature.

        Returns:
            The status of the answer, 200 to 299.

        Raises:
            WebhookAddressRefused: the address may not be sent to.
            WebhookDeliveryFailed: nobody took it; ``status`` in its details is that of the answer, if there was one,
                and ``retry_after_s`` how long the receiver asks to be left alone.
        """
        target = Target.read(url, self._rules)
        addresses = resolve(target, self._rules, self._resolver)
        status, answered = self._post(target, addresses, body, headers)
        if not HTTPStatus(200) <= status < HTTPStatus(300):
            hint = "; redirects are not followed" if 300 <= status < 400 else ""  # noqa: PLR2004 -- the class of statuses
            raise WebhookDeliveryFailed(
                f"The receiver answered {status}{hint}.", status=status, retry_after_s=_retry_after_s(answered)
            )
        return status

    def _post(
        self, target: Target, addresses: Sequence[IpAddress], body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Sequence[tuple[bytes, bytes]]]:
        connection = httpcore.HTTPConnection(
            # TLS is asked for, and verified against, this name; where the connection goes is the backend's business.
            origin=httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port),
            ssl_context=self._tls,
            network_backend=_Pinned(addresses, ends_at=time.monotonic() + self._timeout_s),
        )
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        sent: list[tuple[bytes | str, bytes | str]] = [
            ("Host", target.host_header),
            ("Content-Type", "application/json"),
            ("User-Agent", "defectoscope-webhooks"),
            ("Connection", "close"),
            *headers.items(),
        ]
        try:
            with connection.stream("POST", url, headers=sent, content=body) as response:
                return response.status, response.headers
        except httpcore.TimeoutException as exc:
            raise WebhookDeliveryFailed(f"The receiver did not answer within {self._timeout_s:g} s.") from exc
        except (httpcore.NetworkError, httpcore.ProtocolError) as exc:
            raise WebhookDeliveryFailed(f"The receiver cannot be reached: {exc}"[:_REASON_LENGTH]) from exc
        finally:
            connection.close()


class _Pinned(httpcore.NetworkBackend):
    """Connects to addresses that were judged, whatever the name says by now, and ends everything at one moment."""

    def __init__(self, addresses: Sequence[IpAddress], *, ends_at: float) -> None:
        self._addresses = addresses
        self._ends_at = ends_at
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        del host, timeout
        *others, last = self._addresses
        for number, address in enumerate(others):
            # An equal share of the time for each, so that one that never answers leaves some to the next.
            share_s = _left_s(self._ends_at) / (len(self._addresses) - number)
            try:
                return self._connect(address, port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(last, port, _left_s(self._ends_at), local_address, socket_options)

    def _connect(
        self,
        address: IpAddress,
        port: int,
        timeout_s: float,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(
            str(address), port, timeout=timeout_s, local_address=local_address, socket_options=socket_options
        )
        return _Bounded(stream, ends_at=self._ends_at)


class _Bounded(httpcore.NetworkStream):
    """A stream whose every operation has the time that is left: a receiver that drips bytes gains nothing by it."""

    def __init__(self, stream: httpcore.NetworkStream, *, ends_at: float) -> None:
        self._stream = stream
        self._ends_at = ends_at

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, timeout=_left_s(self._ends_at))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, timeout=_left_s(self._ends_at))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout
        inner = self._stream.start_tls(ssl_context, server_hostname=server_hostname, timeout=_left_s(self._ends_at))
        return _Bounded(inner, ends_at=self._ends_at)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left_s(ends_at: float) -> float:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        # A socket with no time left would not block at all, which is no timeout.
        raise httpcore.ReadTimeout("The time of the attempt is over.")
    return left_s


def _retry_after_s(headers: Sequence[tuple[bytes, bytes]]) -> float:
    """Return what a Retry-After of some seconds asks for; 0 without one. As a date it would need the other's clock."""
    value = next((value for name, value in headers if name.lower() == b"retry-after"), b"").strip()
    return float(value) if _SECONDS.fullmatch(value) else 0.0
