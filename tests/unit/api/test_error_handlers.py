from __future__ import annotations

import inspect
from collections import Counter

import pytest

from api.error_handlers import respond_to, status_of
from defectoscope import errors
from defectoscope.errors import (
    AccessDenied,
    BucketNotFound,
    DefectoscopeError,
    ImageTooLarge,
    JobNotCancellable,
    JobNotFound,
    RequestTooLarge,
    ScopeTooSmall,
    StorageDenied,
    StorageUnavailable,
    TokenUnknown,
    TooManyRequests,
)

EVERY_ERROR = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, DefectoscopeError) and member.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: error.__name__)
def test_every_error_has_a_status_of_an_error(error):
    status = status_of(error)

    assert status in {401, 403, 404, 409, 410, 413, 422, 429, 500, 503}


def test_no_two_errors_share_a_code():
    counts = Counter(error.code for error in EVERY_ERROR)

    assert [code for code, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        pytest.param(JobNotFound, 404, id="not found"),
        pytest.param(BucketNotFound, 404, id="a bucket that is not found"),
        pytest.param(JobNotCancellable, 409, id="conflict"),
        pytest.param(AccessDenied, 403, id="denied"),
        pytest.param(ScopeTooSmall, 403, id="a token that does not allow it"),
        pytest.param(TokenUnknown, 401, id="a token that nobody knows"),
        pytest.param(TooManyRequests, 429, id="too many"),
        pytest.param(RequestTooLarge, 413, id="body too large"),
        pytest.param(ImageTooLarge, 422, id="the caller's file"),
        pytest.param(StorageUnavailable, 503, id="a server is away"),
        pytest.param(StorageDenied, 500, id="our installation"),
    ],
)
def test_the_branch_of_an_error_decides_its_status(error, status):
    assert status_of(error) == status


def test_an_answer_about_a_server_that_is_away_says_when_to_try_again():
    answer = respond_to(StorageUnavailable(bucket="parts"), request_id="r1")

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert b'"details":{"bucket":"parts"}' in answer.body
