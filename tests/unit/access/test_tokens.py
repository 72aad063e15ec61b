from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectoscope.access.tokens import TOKEN_PATTERN, Token, make_secret, read_token
from defectoscope.errors.access import TokenMalformed

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
IDS = st.integers(min_value=1, max_value=2**63 - 1)
SECRETS = st.text(ALPHABET, min_size=43, max_size=43)


@given(IDS, SECRETS)
def test_a_token_is_read_as_it_was_written(token_id, secret):
    token = Token(token_id, secret)

    assert read_token(token.text) == token


@given(IDS, SECRETS, st.data())
def test_one_mistyped_character_is_noticed_without_asking_anybody(token_id, secret, data):
    text = Token(token_id, secret).text
    place = data.draw(st.integers(min_value=0, max_value=len(text) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda letter: letter != text[place]))

    with pytest.raises(TokenMalformed):
        read_token(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text[:-1], id="cut off"),
        pytest.param(lambda text: text + "0", id="too long"),
        pytest.param(lambda text: text.upper(), id="in capitals"),
        pytest.param(lambda text: text.replace("_", "-"), id="with hyphens"),
        pytest.param(lambda text: "ghp" + text[3:], id="of another product"),
        pytest.param(lambda text: text.replace("dsk_7_", "dsk_07_"), id="an id that is written another way"),
        pytest.param(lambda text: text.replace("dsk_7_", "dsk_9999999999999999999_"), id="an id beyond the column"),
        pytest.param(lambda text: text + "\n", id="with a line end"),
        pytest.param(lambda _: "", id="empty"),
    ],
)
def test_what_is_no_token_is_refused(change):
    with pytest.raises(TokenMalformed):
        read_token(change(Token(7, make_secret()).text))


def test_secrets_have_32_random_bytes_and_differ():
    secrets = {make_secret() for _ in range(1000)}

    assert len(secrets) == 1000
    assert all(re.fullmatch(r"[0-9A-Za-z]{43}", secret) for secret in secrets)
    assert 62**43 > 2**256, "43 digits hold them"


def test_a_scanner_finds_a_token_in_the_middle_of_a_text():
    text = Token(7, make_secret()).text

    assert TOKEN_PATTERN.search(f"export TOKEN='{text}' # mine").group() == text


def test_what_is_stored_is_the_hash_of_the_secret_and_matches_no_other():
    token, other = Token(7, make_secret()), Token(7, make_secret())

    assert token.sha256 == hashlib.sha256(token.secret.encode()).hexdigest()
    assert token.is_of(token.sha256)
    assert not token.is_of(other.sha256)


def test_a_token_is_not_shown_by_accident():
    token = Token(7, make_secret())

    assert token.secret not in f"{token!r} {token} {[token]}"
