"""Sends one request and gives back what came, or raises an error of ours. Knows HTTP, refuses to know any noun.

A request that may be repeated without harm is repeated, briefly, when the server says 503 or the connection breaks. A
refused connection is not: nobody listens there, and waiting would only delay the answer to the person asking.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import httpx

from defectoscope.access.tokens import read_token
from defectoscope.errors import DefectoscopeError
from defectoscope.errors.api import ApiAnswerInvalid, ApiRefused, ApiUnavailable, InvalidRequest
from defectoscope.errors.catalogue import classes_by_code
from defectoscope.errors.installation import Unexpected

#: Pauses before the repetitions of a request that may be repeated; a Retry-After header may lengthen them a little.
RETRY_PAUSES_S = (0.2, 0.6, 1.5)
_LONGEST_PAUSE_S = 2.0
_BODY_SHOWN = 200
#: The answers of a proxy whose server is away, and of a server that asks for patience.
_AWAY = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


class Transport:
    """One connection pool to one base URL.

    Args:
        base_url: such as ``http://127.0.0.1:8000``; a path below it is kept.
        timeout_s: for connecting and for each read or write.
        token: API token; None where none is needed.

    Raises:
        InvalidRequest: the address is not usable.
        TokenMalformed: the token was mistyped.
    """

    def __init__(self, base_url: str, *, timeout_s: float, token: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as exc:
            raise InvalidRequest(f"{self.base_url!r} is not an address.") from exc
        if url.scheme not in {"http", "https"} or not url.host:
            raise InvalidRequest(f"{self.base_url!r} is not an http:// or https:// address.", url=self.base_url)
        headers = {"User-Agent": f"defectoscope/{version('defectoscope')}", "Accept": "application/json"}
        if token is not None:
            # In a header, which nobody logs; never in an address. Redirects are not followed, so it goes nowhere else.
            headers["Authorization"] = f"Bearer {read_token(token).text}"
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout_s,
            headers=headers,
            trust_env=not is_loopback(url.host),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        json: object = None,
        files: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool | None = None,
        timeout_s: float | None = None,
    ) -> Any:
        """Send a request and return the decoded JSON of its answer.

        Args:
            method: HTTP method.
            path: below the base URL.
            query: parameters; those that are None are left out.
            json: the body, or None for none.
            files: multipart fields, instead of ``json``.
            headers: further headers.
            repeatable: whether it may be sent again; by default only a GET may.
            timeout_s: instead of the usual one, for a request that keeps the server busy.

        Raises:
            ApiUnavailable: nobody answers, or the server said that it cannot now.
            ApiAnswerInvalid: the answer is no JSON of ours.
            DefectoscopeError: the server refused; the class is the one the server raised.
        """
        request = self._http.build_request(
            method,
            path,
            params=_given(query),
            json=json,
            files=files,
            headers=headers,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s,
        )
        response = self._send(request, repeatable=method == "GET" if repeatable is None else repeatable)
        return self._decode(response)

    @contextmanager
    def stream(self, path: str) -> Iterator[httpx.Response]:
        """Open a GET whose body is read in pieces. Raises as `call` does."""
        request = self._http.build_request("GET", path, headers={"Accept": "*/*"})
        response = self._send(request, repeatable=True, stream=True)
        try:
            yield response
        except httpx.TransportError as exc:
            raise ApiUnavailable(f"The connection to {self.base_url} broke during a download.") from exc
        finally:
            response.close()

    def probe(self, path: str) -> tuple[int, Any]:
        """Send one GET and return status and JSON, whatever the status is."""
        try:
            response = self._http.get(path)
        except httpx.TransportError as exc:
            raise self._away(exc) from exc
        return response.status_code, self._json(response)

    def _send(self, request: httpx.Request, *, repeatable: bool, stream: bool = False) -> httpx.Response:
        pauses = iter(RETRY_PAUSES_S)
        while True:
            pause_s = next(pauses, None)
            try:
                response = self._http.send(request, stream=stream)
            except httpx.ConnectError as exc:
                raise self._away(exc) from exc
            except httpx.TransportError as exc:
                if pause_s is None or not repeatable:
                    raise self._away(exc) from exc
                time.sleep(_jittered(pause_s))
                continue
            if _asks_for_patience(response, repeatable=repeatable) and pause_s is not None:
                response.close()
                time.sleep(max(_jittered(pause_s), min(_retry_after_s(response), _LONGEST_PAUSE_S)))
                continue
            if response.is_success:
                return response
            response.read()
            raise self._refusal(response)

    def _away(self, exc: httpx.TransportError) -> ApiUnavailable:
        why = "does not answer in time" if isinstance(exc, httpx.TimeoutException) else "does not answer"
        return ApiUnavailable(
            f"The Defectoscope API at {self.base_url} {why}; is `defectoscope up` running?", reason=str(exc)
        )

    def _decode(self, response: httpx.Response) -> Any:
        body = self._json(response)
        if not isinstance(body, dict):
            raise self._garbled(response)
        return body

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError as exc:
            raise self._garbled(response) from exc

    def _garbled(self, response: httpx.Response) -> DefectoscopeError:
        if response.status_code in _AWAY:
            return ApiUnavailable(f"The address {self.base_url} answers {response.status_code}: its server is away.")
        return ApiAnswerInvalid(
            f"Something answers at {self.base_url}, but not as the Defectoscope API does "
            f"(status {response.status_code}).",
            status=response.status_code,
            body=response.text[:_BODY_SHOWN],
        )

    def _refusal(self, response: httpx.Response) -> DefectoscopeError:
        try:
            error = response.json()["error"]
            code, message, details = str(error["code"]), str(error["message"]), dict(error.get("details") or {})
        except (ValueError, KeyError, TypeError):
            return self._garbled(response)
        if request_id := error.get("request_id"):
            details["request_id"] = request_id
        return error_of(code, message, details, status=response.status_code)


def error_of(code: str, message: str, details: dict[str, Any], *, status: int) -> DefectoscopeError:
    """Return the error that the server raised, by its code; for a code of a newer server, one of the same branch."""
    details = {name: value for name, value in details.items() if name not in {"message", "server_code"}}
    known = classes_by_code().get(code)
    if known is not None and known is not ApiRefused:
        return known(message, **details)
    if status in _AWAY:
        return ApiUnavailable(message, server_code=code, **details)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Unexpected(message, server_code=code, **details)
    return ApiRefused(message, server_code=code, **details)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine. Requests to it must not go through a proxy of the environment."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _asks_for_patience(response: httpx.Response, *, repeatable: bool) -> bool:
    """Return whether a request should be sent again; what came too soon was not even looked at."""
    too_soon = response.status_code == HTTPStatus.TOO_MANY_REQUESTS
    return too_soon or (repeatable and response.status_code in _AWAY)


def _given(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _jittered(pause_s: float) -> float:
    # Many clients that lost one server at one moment must not come back at one moment.
    return pause_s * random.uniform(0.75, 1.25)  # noqa: S311


def _retry_after_s(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
