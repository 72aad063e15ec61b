"""Every error of obstore has a translation, also those a later obstore may bring."""

from __future__ import annotations

import inspect

import obstore.exceptions
import pytest

from defectoscope.errors import DefectoscopeError
from defectoscope.errors.storage import (
    BucketNotFound,
    InvalidStorageKey,
    ObjectNotFound,
    StorageDenied,
    StorageFault,
    StorageUnavailable,
)
from defectoscope.storage.failures import TRANSLATIONS, from_s3_answer, translated

VENDOR_CLASSES = [kind for _, kind in inspect.getmembers(obstore.exceptions, inspect.isclass)]


def test_obstore_has_error_classes():
    assert len(VENDOR_CLASSES) > 5


@pytest.mark.parametrize("vendor_class", VENDOR_CLASSES)
def test_every_error_of_obstore_is_translated(vendor_class):
    with pytest.raises(DefectoscopeError) as caught, translated(bucket="b", key="k"):
        raise vendor_class("what the vendor says")

    assert vendor_class in TRANSLATIONS
    assert isinstance(caught.value.__cause__, vendor_class)
    assert caught.value.details.items() >= {"bucket": "b", "key": "k"}.items()
    assert "vendor" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "error"),
    [
        pytest.param("Server returned non-2xx status code: 403 Forbidden: ", StorageDenied, id="head-403"),
        pytest.param("status code: 404 Not Found: <Code>NoSuchBucket</Code>", BucketNotFound, id="no-bucket"),
        pytest.param("status code: 503 Service Unavailable: ", StorageUnavailable, id="503"),
        pytest.param("status code: 400 Bad Request: <Code>KeyTooLongError</Code>", InvalidStorageKey, id="long-key"),
        pytest.param("HTTP error: error sending request", StorageUnavailable, id="network"),
        pytest.param("Received redirect without LOCATION", StorageFault, id="wrong-region"),
        pytest.param("Generic LocalFileSystem error: File name too long (os error 36)", InvalidStorageKey, id="name"),
        pytest.param("Generic LocalFileSystem error: No space left (os error 28)", StorageUnavailable, id="disk-full"),
        pytest.param("Generic LocalFileSystem error: denied (os error 13)", StorageDenied, id="file-mode"),
        pytest.param("Generic LocalFileSystem error: something new", StorageFault, id="unknown-local"),
    ],
)
def test_a_generic_error_is_judged_by_its_text(text, error):
    with pytest.raises(DefectoscopeError) as caught, translated():
        raise obstore.exceptions.GenericError(text)

    assert type(caught.value) is error


def test_an_error_that_is_not_the_vendors_passes_through():
    with pytest.raises(KeyError), translated():
        raise KeyError("ours")


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        pytest.param(404, None, ObjectNotFound, id="404"),
        pytest.param(409, "ConditionalRequestConflict", StorageUnavailable, id="conditional-conflict"),
        pytest.param(409, "BucketAlreadyExists", StorageDenied, id="bucket-of-another"),
        pytest.param(418, None, StorageFault, id="unexpected"),
        pytest.param(502, None, StorageUnavailable, id="gateway"),
    ],
)
def test_an_answer_of_s3_has_its_error(status, code, error):
    translated_error = from_s3_answer(status, code, bucket="b")

    assert type(translated_error) is error
    assert translated_error.details == {"bucket": "b", "http_status": status, "s3_code": code}
