"""Makes buckets and signs requests that a client sends to S3 itself, with boto3, which has both where obstore has not.

A signed upload binds what may arrive: the server refuses another size, type, content or a second write. This file
refuses to move data: that is the work of `Storage`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError
from botocore.exceptions import ConnectionError as ConnectionFailed

from defectoscope.errors.storage import (
    BucketNotFound,
    InvalidStorageKey,
    InvalidStorageUri,
    ObjectNotFound,
    StorageFault,
    StorageUnavailable,
)
from defectoscope.storage.content import check_sha256
from defectoscope.storage.failures import from_s3_answer
from defectoscope.storage.keys import check_content_type, check_key
from defectoscope.storage.open import S3Config

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client
    from types_boto3_s3.type_defs import CreateBucketRequestTypeDef


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedRequest:
    """A PUT that a client may send once.

    Attributes:
        url: Where to; whoever has it may use it, so it is not shown.
        headers: Exactly these must be sent; they are part of the signature.
    """

    url: str = field(repr=False)
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedPost:
    """A form that a browser may post.

    Attributes:
        url: Where to.
        fields: Form fields to send before the field `file`; they carry the signature, so they are not shown.
    """

    url: str
    fields: dict[str, str] = field(repr=False)


class Buckets:
    """The buckets of one S3 server, and signed requests for our own bucket; safe to share between threads.

    Args:
        config: The server and our bucket.
    """

    def __init__(self, config: S3Config) -> None:
        self._config = config
        with _translated(config.bucket):
            self._client: S3Client = boto3.client(
                "s3",
                endpoint_url=config.endpoint_url,
                region_name=config.region,
                aws_access_key_id=config.access_key,
                aws_secret_access_key=config.secret_key,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    retries={"mode": "standard", "total_max_attempts": 3},
                    connect_timeout=3,
                    read_timeout=5,
                    max_pool_connections=16,
                ),
            )

    def ensure(self, bucket: str) -> None:
        """Make a bucket unless it exists.

        Raises:
            InvalidStorageUri: This cannot be the name of a bucket.
            StorageDenied: The bucket belongs to someone else, or we may not make it.
            StorageUnavailable: The server does not answer.
        """
        if self.exists(bucket):
            return
        request: CreateBucketRequestTypeDef = {"Bucket": bucket}
        if self._config.endpoint_url is None and self._config.region != "us-east-1":
            # Amazon wants the region said, except the first one, which must not be.
            request["CreateBucketConfiguration"] = {"LocationConstraint": self._config.region}  # type: ignore[typeddict-item]
        with _translated(bucket):
            try:
                self._client.create_bucket(**request)
            except self._client.exceptions.BucketAlreadyOwnedByYou:
                # Another process was faster, which is what was wanted.
                return

    def exists(self, bucket: str) -> bool:
        """Say whether a bucket exists.

        Raises:
            StorageDenied: It exists and is not ours, or the credentials are wrong.
            StorageUnavailable: The server does not answer.
        """
        try:
            with _translated(bucket):
                self._client.head_bucket(Bucket=bucket)
        except (BucketNotFound, ObjectNotFound):
            return False
        return True

    def abort_uploads(self, prefix: str, *, before: datetime) -> int:
        """Abort uploads to our bucket in parts that were begun and never ended; their parts take up space unseen.

        Args:
            prefix: of the keys.
            before: those that began earlier, UTC.

        Returns:
            How many were aborted.

        Raises:
            StorageUnavailable: the server does not answer; calling again is safe.
        """
        aborted = 0
        bucket = self._config.bucket
        with _translated(bucket):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix):
                for upload in page.get("Uploads", []):
                    if upload["Initiated"] < before:
                        self._client.abort_multipart_upload(
                            Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        aborted += 1
        return aborted

    def presign_put(
        self, key: str, *, sha256: str, size_bytes: int, content_type: str, expires_in_s: int
    ) -> PresignedRequest:
        """Sign the upload of one known content; S3 refuses other bytes, another size or type, and a second write.

        Args:
            key: The object, which must not exist yet.
            sha256: Of the content, in hexadecimal.
            size_bytes: Length of the content in bytes.
            content_type: Its media type.
            expires_in_s: How long the signature holds, in seconds; at most seven days.
        """
        check_key(key)
        checksum = base64.b64encode(bytes.fromhex(check_sha256(sha256))).decode("ascii")
        with _translated(self._config.bucket):
            url = self._client.generate_presigned_url(
                "put_object",
                Params={
                    "Bucket": self._config.bucket,
                    "Key": key,
                    "ContentType": check_content_type(content_type),
                    "ContentLength": size_bytes,
                    "ChecksumSHA256": checksum,
                    "IfNoneMatch": "*",
                },
                ExpiresIn=expires_in_s,
            )
        return PresignedRequest(
            url=url,
            headers={
                "Content-Type": content_type,
                "Content-Length": str(size_bytes),
                "x-amz-checksum-sha256": checksum,
                "If-None-Match": "*",
            },
        )

    def presign_post(self, key: str, *, max_bytes: int, content_type: str, expires_in_s: int) -> PresignedPost:
        """Sign a form for one upload of unknown content; S3 refuses another key or type and more bytes.

        A form cannot forbid a second write: choose a key that is used once.

        Args:
            key: The object.
            max_bytes: The most bytes to accept; an empty file is refused.
            content_type: The media type the form must state.
            expires_in_s: How long the signature holds, in seconds; at most seven days.

        Raises:
            InvalidStorageKey: The key is outside the rules, or holds `${filename}`.
        """
        if "${filename}" in check_key(key):
            raise InvalidStorageKey(
                "S3 would replace '${filename}' in the key by a name of the client's choice.", key=key
            )
        with _translated(self._config.bucket):
            signed = self._client.generate_presigned_post(
                self._config.bucket,
                key,
                Fields={"Content-Type": check_content_type(content_type)},
                Conditions=[["content-length-range", 1, max_bytes], {"Content-Type": content_type}],
                ExpiresIn=expires_in_s,
            )
        return PresignedPost(url=signed["url"], fields=signed["fields"])

    def presign_get(self, key: str, *, expires_in_s: int, download_name: str | None = None) -> str:
        """Sign the download of one object.

        Args:
            key: The object; whether it exists shows when the address is used.
            expires_in_s: How long the signature holds, in seconds; at most seven days.
            download_name: ASCII file name under which a browser shall save it; None to leave that to the browser.

        Returns:
            The address; whoever has it may read the object.
        """
        check_key(key)
        params = {"Bucket": self._config.bucket, "Key": key}
        if download_name is not None:
            params["ResponseContentDisposition"] = f'attachment; filename="{_quotable(download_name)}"'
        with _translated(self._config.bucket):
            return self._client.generate_presigned_url("get_object", Params=params, ExpiresIn=expires_in_s)


def _quotable(name: str) -> str:
    """Replace what could end or split a quoted header value."""
    return "".join(character if " " <= character <= "~" and character not in '"\\' else "_" for character in name)


@contextmanager
def _translated(bucket: str) -> Iterator[None]:
    """Run calls of boto3; what they raise leaves as one of our errors."""
    try:
        yield
    except ClientError as exc:
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        code = exc.response.get("Error", {}).get("Code")
        raise from_s3_answer(status, code, bucket=bucket) from exc
    except ParamValidationError as exc:
        raise InvalidStorageUri("The name cannot be that of a bucket.", bucket=bucket) from exc
    except (HTTPClientError, ConnectionFailed) as exc:
        raise StorageUnavailable(bucket=bucket) from exc
    except (BotoCoreError, ValueError) as exc:
        raise StorageFault("The object storage is configured wrongly.", bucket=bucket) from exc
