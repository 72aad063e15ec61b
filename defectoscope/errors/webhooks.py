"""Webhooks and their deliveries."""

from __future__ import annotations

from defectoscope.errors import CallerError, Conflict, NotFound, NotNow


class WebhookNotFound(NotFound):
    """No webhook has this id."""


class WebhookDeliveryNotFound(NotFound):
    """The webhook has no delivery of this id."""


class WebhookKindUnknown(CallerError):
    """There are no events of this kind."""


class WebhookAddressRefused(CallerError):
    """Events may not be sent to this address."""


class WebhookSignatureInvalid(CallerError):
    """The signature does not fit the body; it was not sent by a Defectoscope that knows the secret."""


class TooManyWebhooks(Conflict):
    """There are as many webhooks as there may be."""


class WebhookDisabled(Conflict):
    """The webhook is disabled."""


class WebhookDeliveryPending(Conflict):
    """The delivery is still owed and tried by itself."""


class WebhookDeliveryFailed(NotNow):
    """The receiver did not take the event."""
