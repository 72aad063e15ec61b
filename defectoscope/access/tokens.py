"""The text of an API token: ``dsk_<id>_<secret><checksum>``. Knows no database and refuses to keep anything.

The prefix lets a scanner of repositories find a token that leaked. The checksum tells a mistyped token from a wrong one
without asking anybody. The id finds the row; the secret, 32 random bytes, is known to the holder alone: what is stored
is its SHA-256. No slower hash is needed, since nobody can go through so many secrets.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Final

from defectoscope.errors.access import TokenMalformed

#: No character that ends a word: a double click marks the whole token.
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_BYTES: Final = 32
#: Digits to base 62 that hold 32 bytes, and those that hold the 32 bits of a checksum.
_SECRET_LENGTH: Final = 43
_CHECKSUM_LENGTH: Final = 6
#: What a token looks like wherever it stands; an id is at most 2**63 - 1.
TOKEN_PATTERN: Final = re.compile(rf"dsk_([1-9][0-9]{{0,18}})_([0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}})")
_LARGEST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed token. Its text is not shown by ``repr``."""

    id: int
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """What its holder sends."""
        body = f"dsk_{self.id}_{self.secret}"
        return body + _checksum(body)

    @property
    def sha256(self) -> str:
        """What is stored, lower-case hexadecimal."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def is_of(self, sha256: str) -> bool:
        """Return whether a stored hash is that of this token, in a time that tells nothing."""
        return compare_digest(self.sha256, sha256)


def make_secret() -> str:
    """Return a new secret: 32 random bytes as 43 digits to base 62."""
    return _to_base_62(int.from_bytes(secrets.token_bytes(_SECRET_BYTES)), length=_SECRET_LENGTH)


def read_token(text: str) -> Token:
    """Take a token apart.

    Raises:
        TokenMalformed: it is none, or its checksum is wrong.
    """
    found = TOKEN_PATTERN.fullmatch(text)
    if found is None or int(found[1]) > _LARGEST_ID:
        raise TokenMalformed
    token = Token(int(found[1]), found[2][:_SECRET_LENGTH])
    if not compare_digest(token.text, text):
        raise TokenMalformed
    return token


def _checksum(body: str) -> str:
    return _to_base_62(zlib.crc32(body.encode()), length=_CHECKSUM_LENGTH)


def _to_base_62(number: int, *, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
