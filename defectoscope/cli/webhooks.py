"""`defectoscope webhooks`: have other systems told of events, and see what became of telling them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import (
    Cell,
    answer,
    note,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
    say,
    state_text,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client

if TYPE_CHECKING:
    from defectoscope.client import Client
    from defectoscope.client.wire import Webhook, WebhookDelivery

app = typer.Typer(no_args_is_help=True, help="Have other systems told of events, signed and until they take them.")

WebhookId = Annotated[int, typer.Argument(metavar="ID", help="Number of the webhook.")]

_URL_WIDTH = 60
_REASON_WIDTH = 70
_STYLES = {"pending": "cyan", "delivered": "green", "dead": "bold red"}
_LOOK_INTERVAL_S = 0.5


@app.command()
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent: https://host/path.")],
    kind: Annotated[
        list[str],
        typer.Option("--kind", metavar="KIND", help="Of events: job.finished, model.* or *; may be given repeatedly."),
    ],
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="A name for people.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Have an address told of events, and print the secret that signs them. It is shown this once."""
    with open_client() as client:
        made = client.webhooks.create(url, kinds=kind, name=name)
    if as_json:
        print_json(made)
        return
    note(f"Webhook {made['webhook']['id']} is told of {', '.join(kind)}. Its secret is shown this once:")
    say(made["secret"])


@app.command("list")
def list_webhooks(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List webhooks, newest first, without their secrets."""
    with open_client() as client:
        webhooks = client.webhooks.list(limit=limit or None)
        if as_json:
            print_json_items(webhooks)
            return
        columns = {"webhook": "right", "name": "left", "state": "left", "kinds": "left", "address": "left"}
        print_table(
            {**columns, "pending": "right", "dead": "right"},  # type: ignore[dict-item]
            [
                [
                    webhook["id"],
                    webhook["name"],
                    _state_of(webhook),
                    ", ".join(webhook["kinds"]),
                    webhook["url"],
                    webhook["pending"],
                    webhook["dead"],
                ]
                for webhook in webhooks
            ],
            empty="There is no webhook.",
            column_width=_URL_WIDTH,
        )


@app.command()
def kinds(as_json: JsonOption = False) -> None:
    """List the kinds of events that a webhook can be told of."""
    with open_client() as client:
        known = client.webhooks.kinds()
    if as_json:
        print_json({"items": known})
        return
    rows = [[kind["kind"], kind["meaning"]] for kind in known]
    print_table({"kind": "left", "when": "left"}, rows, empty="There are none.")


@app.command()
def show(webhook_id: WebhookId, as_json: JsonOption = False) -> None:
    """Show one webhook, without its secret."""
    with open_client() as client:
        webhook = client.webhooks.get(webhook_id)
    if as_json:
        print_json(webhook)
        return
    print_title(f"Webhook {webhook['id']}", _state_of(webhook))
    facts: dict[str, Cell] = {
        "name": webhook["name"],
        "address": webhook["url"],
        "kinds": ", ".join(webhook["kinds"]),
        "created": format_time(webhook["created_at"]),
        "disabled": format_time(webhook["disabled_at"]),
        "because": webhook["disabled_reason"],
        "old secret until": format_time(webhook["previous_secret_until"]),
        "failed in a row": webhook["failures"] or None,
        "pending": webhook["pending"],
        "dead": webhook["dead"],
    }
    print_facts(facts, indent=2)


@app.command()
def delete(webhook_id: WebhookId, as_json: JsonOption = False) -> None:
    """Forget a webhook with its secret and the record of its deliveries."""
    with open_client() as client:
        was = client.webhooks.delete(webhook_id)
    answer(was, f"Webhook {webhook_id} is gone.", as_json=as_json)


@app.command()
def disable(webhook_id: WebhookId, as_json: JsonOption = False) -> None:
    """Send nothing more to a webhook. What it is owed waits; what happens meanwhile it is not told."""
    with open_client() as client:
        webhook = client.webhooks.disable(webhook_id)
    answer(webhook, f"Webhook {webhook_id} is disabled, with {webhook['pending']} owed.", as_json=as_json)


@app.command()
def enable(webhook_id: WebhookId, as_json: JsonOption = False) -> None:
    """Send to a webhook again, first what it is owed."""
    with open_client() as client:
        webhook = client.webhooks.enable(webhook_id)
    answer(webhook, f"Webhook {webhook_id} is enabled, with {webhook['pending']} owed.", as_json=as_json)


@app.command()
def rotate(webhook_id: WebhookId, as_json: JsonOption = False) -> None:
    """Make a new secret and print it, this once. The one before signs beside it for a day."""
    with open_client() as client:
        made = client.webhooks.rotate(webhook_id)
    if as_json:
        print_json(made)
        return
    until = format_time(made["webhook"]["previous_secret_until"])
    note(f"Webhook {webhook_id} is signed with both secrets until {until}. The new one is shown this once:")
    say(made["secret"])


@app.command("test")
def send_test(
    webhook_id: WebhookId,
    wait: Annotated[float, typer.Option(min=0, metavar="S", help="Stay so long for the outcome, seconds.")] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Send an event that says nothing but that it is a test, and say whether the first attempt was taken."""
    with open_client() as client:
        delivery = _watch(client, client.webhooks.test(webhook_id), wait_s=wait)
    if as_json:
        print_json(delivery)
    elif delivery["state"] == "delivered":
        say(f"Webhook {webhook_id} took it, with status {delivery['status']}.", style="green")
    else:
        say(f"Webhook {webhook_id} has not taken it: {delivery['error'] or 'it was not tried yet'}", style="bold red")
    if delivery["state"] != "delivered":
        raise typer.Exit(1)


@app.command()
def deliveries(
    webhook_id: WebhookId,
    state: Annotated[
        Literal["pending", "delivered", "dead"] | None, typer.Option(help="Only those in this state.")
    ] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List what was, is and could not be delivered to a webhook, newest first."""
    with open_client() as client:
        found = client.webhooks.deliveries(webhook_id, state=state, limit=limit or None)
        if as_json:
            print_json_items(found)
            return
        print_table(
            {
                "delivery": "right",
                "when": "left",
                "event": "left",
                "about": "left",
                "state": "left",
                "attempts": "right",
                "next": "left",
                "last error": "left",
            },
            [
                [
                    delivery["id"],
                    format_time(delivery["created_at"]),
                    delivery["kind"],
                    delivery["subject"],
                    Text(delivery["state"], style=_STYLES[delivery["state"]]),
                    delivery["attempts"],
                    format_time(delivery["next_attempt_at"]),
                    delivery["error"],
                ]
                for delivery in found
            ],
            empty="There are no such deliveries." if state else "Nothing has happened that it is told of.",
            column_width=_REASON_WIDTH,
        )


@app.command()
def redeliver(
    webhook_id: WebhookId,
    delivery_id: Annotated[
        int | None, typer.Argument(metavar="DELIVERY", help="Number of one delivery, dead or delivered.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Try deliveries again: the one named or, without one, every dead delivery of the webhook."""
    with open_client() as client:
        if delivery_id is None:
            count = client.webhooks.redeliver_dead(webhook_id)
            answer(
                {"redelivered": count},
                f"{count} dead {'delivery is' if count == 1 else 'deliveries are'} owed again.",
                as_json=as_json,
            )
            return
        delivery = client.webhooks.redeliver(webhook_id, delivery_id)
    answer(delivery, f"Delivery {delivery_id} is owed again.", as_json=as_json)


def _watch(client: Client, delivery: WebhookDelivery, *, wait_s: float) -> WebhookDelivery:
    """Look until the first attempt has ended or the time is over."""
    ends_at = time.monotonic() + wait_s
    while delivery["state"] == "pending" and not delivery["error"] and time.monotonic() < ends_at:
        time.sleep(_LOOK_INTERVAL_S)
        delivery = client.webhooks.delivery(delivery["webhook_id"], delivery["id"])
    return delivery


def _state_of(webhook: Webhook) -> Text:
    if webhook["disabled_at"]:
        return Text("disabled", style="dim")
    return state_text("failed" if webhook["failures"] else "ok")
