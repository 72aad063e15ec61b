"""Addresses of the form `s3://bucket/key`."""

from __future__ import annotations

import pytest

from defectoscope.errors.storage import InvalidStorageUri
from defectoscope.storage.uri import S3Uri


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://images/line-3/1.png", "images", "line-3/1.png"),
        ("s3://images/line-3/", "images", "line-3/"),
        ("s3://images/", "images", ""),
        ("s3://a.b-c.3/100%25/ü ?#.png", "a.b-c.3", "100%25/ü ?#.png"),
    ],
)
def test_an_address_is_read_and_written_back(text, bucket, key):
    uri = S3Uri.parse(text)

    assert uri == S3Uri(bucket, key)
    assert str(uri) == text


def test_a_bucket_alone_means_all_of_it():
    assert S3Uri.parse("s3://images") == S3Uri.parse("s3://images/")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "images/1.png",
        "http://images/1.png",
        "S3://images/1.png",
        "s3:/images/1.png",
        "s3://",
        "s3:///1.png",
        "s3://ab/1.png",
        "s3://Images/1.png",
        "s3://a..b/1.png",
        "s3://user@images/1.png",
        "s3://images:80/1.png",
        "s3://" + "a" * 64 + "/1.png",
        "s3://images//1.png",
        "s3://images/../other/1.png",
        "s3://images/a\\b/1.png",
        "s3://images/a\n/1.png",
        "s3://images/" + "a" * 1025,
        " s3://images/1.png",
    ],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(InvalidStorageUri):
        S3Uri.parse(text)
