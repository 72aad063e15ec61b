"""The rules for keys and the other texts callers choose, checked before any backend reads them in its own way.

SeaweedFS turns a backslash into a slash and drops empty segments, a local directory gives `..` a meaning; such keys are
refused here for all. A media type or etag with a line break would end the process inside obstore, which panics. This
file refuses to repair a text: a silent repair would make two keys one object.
"""

from __future__ import annotations

import re
import unicodedata

from defectoscope.errors.api import InvalidRequest
from defectoscope.errors.storage import InvalidStorageKey

MAX_KEY_BYTES = 1024
_CONTENT_TYPE = re.compile(r"[!-~]{1,127}/[ -~]{1,127}")
_ETAG = re.compile(r"[!-~]{1,1024}")


def check_key(key: str) -> str:
    """Return the key when it may name an object.

    Raises:
        InvalidStorageKey: It is empty, too long, or holds an empty, `.` or `..` segment, a backslash, a control
            character or an unpaired surrogate.
    """
    if not key:
        raise InvalidStorageKey("A key of a stored object must not be empty.")
    _check_characters(key)
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise InvalidStorageKey(
            "The key begins or ends with '/', or holds an empty, '.' or '..' segment.", key=_printable(key)
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return the prefix when keys may begin with it; unlike a key it may be empty or end with `/`.

    Raises:
        InvalidStorageKey: No valid key can begin with it.
    """
    _check_characters(prefix)
    complete_segments = prefix.split("/")[:-1]
    if any(segment in {"", ".", ".."} for segment in complete_segments):
        raise InvalidStorageKey(
            "The prefix begins with '/', or holds an empty, '.' or '..' segment.", key=_printable(prefix)
        )
    return prefix


def check_content_type(content_type: str) -> str:
    """Return the text when it may be sent as a media type.

    Raises:
        InvalidRequest: It is not of the form `type/subtype` in printable ASCII.
    """
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidRequest("A media type is written as type/subtype.", content_type=_printable(content_type))
    return content_type


def check_etag(etag: str) -> str:
    """Return the text when it may be sent as an etag; an empty one would ask for nothing and match everything.

    Raises:
        InvalidRequest: It is empty or not printable ASCII.
    """
    if not _ETAG.fullmatch(etag):
        raise InvalidRequest("An etag is printable ASCII without spaces.", etag=_printable(etag))
    return etag


def _check_characters(text: str) -> None:
    """Refuse what is too long or unsafe in any position."""
    if any(character == "\\" or unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise InvalidStorageKey(
            "The key holds a backslash, a control character or an unpaired surrogate.", key=_printable(text)
        )
    size_bytes = len(text.encode())
    if size_bytes > MAX_KEY_BYTES:
        raise InvalidStorageKey(
            f"The key has {size_bytes} bytes in UTF-8; {MAX_KEY_BYTES} are allowed.", size_bytes=size_bytes
        )


def _printable(text: str) -> str:
    """Return the text in ASCII, shortened, safe for logs and JSON."""
    return ascii(text)[:200]
