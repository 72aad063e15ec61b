"""The parts the API works with, opened when it starts and closed when it ends. Nothing here connects by itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from threading import BoundedSemaphore
from typing import Annotated

from fastapi import Depends, Request

from api.courier import Courier
from defectoscope.connect import (
    gate_rules,
    open_database,
    open_decoder,
    open_input_buckets,
    open_queue,
    open_sender,
    retry_policy,
    s3_config,
)
from defectoscope.database import Database
from defectoscope.inspection.sources import InputBuckets
from defectoscope.queue import CeleryQueue
from defectoscope.registry.gate_rules import GateRules
from defectoscope.segmentation import Decoder
from defectoscope.settings import Settings
from defectoscope.storage import Buckets, S3Uri, Storage, open_s3
from defectoscope.webhooks.sending import Sender

#: Images decoded at once, of all requests together. One of 200 megapixels takes 600 MB while it is decoded.
_DECODED_AT_ONCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What routes and use cases of the API are given.

    Attributes:
        bucket: name of our own bucket, which `storage` is.
        buckets: the buckets of the server, as this process reaches it.
        decoder: decodes images and labels from outside.
        signer: signs requests for the address at which clients reach the server.
        chunk_size: images in a chunk.
        qa_min_iou: pooled defect IoU at which a labelled job passes, unless it says otherwise.
        gate_rules: what the gate demands of a version, for comparisons.
        max_model_bytes: largest model file taken for import.
        sender: the way to webhooks, and the judge of their addresses.
        courier: sends to webhooks once it is started.
        grace: how long an object that nothing refers to is kept.
        decode_slots: held while an image is in memory, so that many uploads at once cannot use it up.
    """

    database: Database
    queue: CeleryQueue
    storage: Storage
    bucket: str
    buckets: Buckets
    signer: Buckets
    input_buckets: InputBuckets
    decoder: Decoder
    chunk_size: int
    qa_min_iou: float
    gate_rules: GateRules
    max_model_bytes: int
    sender: Sender
    courier: Courier
    decode_slots: BoundedSemaphore
    grace: timedelta

    def close(self) -> None:
        """Close what holds connections or processes."""
        self.courier.close()
        self.database.close()
        self.decoder.close()

    def uri(self, key: str) -> str:
        """Return the address of an object in our own bucket."""
        return str(S3Uri(self.bucket, key))


def open_services(settings: Settings) -> Services:
    """Make every part from the settings.

    Raises:
        SettingMissing: an address or a key is not set.
    """
    config = s3_config(settings)
    storage = open_s3(config)
    database, sender = open_database(settings), open_sender(settings)
    public_url = settings.storage.public_endpoint_url or config.endpoint_url
    return Services(
        database=database,
        queue=open_queue(settings, name="defectoscope.api"),
        storage=storage,
        bucket=config.bucket,
        buckets=Buckets(config),
        signer=Buckets(replace(config, endpoint_url=public_url)),
        input_buckets=open_input_buckets(settings, own=storage),
        decoder=open_decoder(settings),
        chunk_size=settings.inspection.chunk_size,
        qa_min_iou=settings.inspection.qa_min_iou,
        gate_rules=gate_rules(settings),
        max_model_bytes=settings.api.max_model_bytes,
        sender=sender,
        courier=Courier(settings.webhooks, database=database, sender=sender, retry=retry_policy(settings)),
        decode_slots=BoundedSemaphore(_DECODED_AT_ONCE),
        grace=timedelta(days=settings.storage.grace_days),
    )


def _services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


#: How a route asks for them.
Parts = Annotated[Services, Depends(_services_of)]
