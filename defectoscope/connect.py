"""From settings to connections: the one place where a process turns its settings into the parts it works with."""

from __future__ import annotations

from ipaddress import ip_network

from defectoscope.database import Database
from defectoscope.inspection.archives import ArchiveLimits
from defectoscope.inspection.backoff import Backoff
from defectoscope.inspection.sources import InputBuckets
from defectoscope.queue import CeleryQueue, make_celery
from defectoscope.registry.gate_rules import GateRules
from defectoscope.segmentation import DecodeLimits, Decoder, DirectDecoder
from defectoscope.segmentation.isolation import IsolatedDecoder, ProcessLimits
from defectoscope.settings import Settings, required
from defectoscope.storage import S3Config, Storage, open_s3
from defectoscope.webhooks.addresses import AddressRules
from defectoscope.webhooks.outbox import RetryPolicy
from defectoscope.webhooks.sending import Sender


def open_database(settings: Settings) -> Database:
    """Return the database of the settings; nothing connects yet.

    Raises:
        SettingMissing: its URL is not set.
    """
    return Database(
        required(settings.database.url, "database.url").get_secret_value(),
        pool_size=settings.database.pool_size,
        statement_timeout_s=settings.database.statement_timeout_s,
    )


def open_queue(settings: Settings, *, name: str) -> CeleryQueue:
    """Return the sending side of the broker; nothing connects yet.

    Raises:
        SettingMissing: its URL is not set.
    """
    url = required(settings.queue.url, "queue.url").get_secret_value()
    return CeleryQueue(make_celery(name, broker_url=url, key_prefix=settings.queue.key_prefix))


def backoff(settings: Settings) -> Backoff:
    """Return how long chunks rest after a fault."""
    inspection = settings.inspection
    return Backoff(first_s=inspection.backoff_s, longest_s=inspection.longest_backoff_s)


def s3_config(settings: Settings) -> S3Config:
    """Return how to reach the object storage.

    Raises:
        SettingMissing: a key is not set.
    """
    return S3Config(
        endpoint_url=settings.storage.endpoint_url,
        region=settings.storage.region,
        access_key=required(settings.storage.access_key, "storage.access_key"),
        secret_key=required(settings.storage.secret_key, "storage.secret_key").get_secret_value(),
        bucket=settings.storage.bucket,
    )


def open_input_buckets(settings: Settings, *, own: Storage) -> InputBuckets:
    """Return the buckets that images may be read from, our own among them."""
    config = s3_config(settings)
    return InputBuckets(
        own_name=settings.storage.bucket,
        own=own,
        open_bucket=lambda bucket: open_s3(config, bucket=bucket),
        allowed=settings.storage.input_buckets,
    )


def decode_limits(settings: Settings) -> DecodeLimits:
    """Return what an image may be."""
    return DecodeLimits(max_bytes=settings.inspection.max_image_bytes, max_pixels=settings.inspection.max_image_pixels)


def open_decoder(settings: Settings) -> Decoder:
    """Return what decodes files from outside, as the settings have it; no process is started yet.

    Raises:
        PlatformUnsupported: this system cannot decode in processes of its own.
    """
    limits = decode_limits(settings)
    if settings.decode.isolation == "off":
        return DirectDecoder(limits=limits)
    return IsolatedDecoder(
        limits=limits,
        process_limits=ProcessLimits(timeout_s=settings.decode.timeout_s, memory_bytes=settings.decode.memory_bytes),
        processes=settings.decode.processes,
    )


def archive_limits(settings: Settings) -> ArchiveLimits:
    """Return what an archive may unpack to."""
    return ArchiveLimits(
        max_members=settings.inspection.max_archive_members,
        max_member_bytes=settings.inspection.max_image_bytes,
        max_total_bytes=settings.inspection.max_archive_bytes,
        max_ratio=settings.inspection.max_archive_ratio,
    )


def gate_rules(settings: Settings) -> GateRules:
    """Return what a model version must show to be promoted."""
    return GateRules(
        margin=settings.gate.margin,
        slice_margin=settings.gate.slice_margin,
        min_groups=settings.gate.min_groups,
        floor_mean_iou=settings.gate.first_min_iou,
        floor_pooled_iou=settings.gate.min_pooled_iou,
    )


def open_sender(settings: Settings) -> Sender:
    """Return what sends to webhooks; it connects for each delivery alone.

    Raises:
        SettingMissing: the file with the certificates cannot be read.
    """
    webhooks = settings.webhooks
    rules = AddressRules(
        ports=frozenset(webhooks.ports),
        http_hosts=frozenset(webhooks.http_hosts),
        private_hosts=frozenset(webhooks.private_hosts),
        private_networks=tuple(ip_network(network) for network in webhooks.private_networks),
    )
    return Sender(rules=rules, timeout_s=webhooks.timeout_s, ca_file=webhooks.ca_file)


def retry_policy(settings: Settings) -> RetryPolicy:
    """Return when deliveries that failed are tried again."""
    webhooks = settings.webhooks
    return RetryPolicy(
        max_attempts=webhooks.max_attempts, first_s=webhooks.retry_first_s, longest_s=webhooks.retry_longest_s
    )
