from __future__ import annotations

import pytest

from api.error_handlers import respond_to, status_of
from defectoscope.errors import AccessDenied, DefectoscopeError
from defectoscope.errors.access import ScopeTooSmall, TokenUnknown
from defectoscope.errors.api import RequestTooLarge, TooManyRequests
from defectoscope.errors.catalogue import descendants
from defectoscope.errors.images import ImageTooLarge
from defectoscope.errors.jobs import JobNotCancellable, JobNotFound
from defectoscope.errors.storage import BucketNotFound, StorageDenied, StorageUnavailable


@pytest.mark.parametrize("error", list(descendants(DefectoscopeError)), ids=lambda error: error.__name__)
def test_every_error_has_a_status_of_an_error(error):
    status = status_of(error)

    assert status in {401, 403, 404, 409, 410, 413, 422, 429, 500, 503}


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
