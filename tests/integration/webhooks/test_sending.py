"""The way to a receiver: to the very address that was judged, by TLS under its name, and not for long."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from threading import Thread

import pytest

from defectoscope.errors.installation import SettingMissing
from defectoscope.errors.webhooks import WebhookAddressRefused, WebhookDeliveryFailed
from defectoscope.webhooks.addresses import AddressRules
from defectoscope.webhooks.sending import Sender
from tests.receivers import receiving


class Answers:
    """A resolver that says something else each time it is asked, as that of an attacker can."""

    def __init__(self, *answers):
        self.asked = []
        self._answers = list(answers)

    def __call__(self, host, _port):
        self.asked.append(host)
        return self._answers.pop(0)


def send(sender, url, **headers):
    return sender.send(url, body=b"{}", headers=headers)


def test_a_body_reaches_its_receiver_with_its_headers(receiver, make_sender):
    status = send(make_sender(), receiver.url("/a?b=c", host="receiver.test"), **{"webhook-id": "evt_1"})

    [request] = receiver.requests
    assert status == 204
    assert (request.path, request.body) == ("/a?b=c", b"{}")
    assert request.headers["host"] == f"receiver.test:{receiver.port}"
    assert request.headers["webhook-id"] == "evt_1"
    assert request.headers["content-type"] == "application/json"


def test_the_name_is_resolved_once_and_the_connection_goes_to_what_was_judged(receiver, make_sender):
    resolver = Answers(["127.0.0.1"], ["127.0.0.2"])
    with receiving("127.0.0.2", receiver.port) as inner:
        sender = make_sender(resolver=resolver)

        status = send(sender, receiver.url(host="receiver.test"))

        assert status == 204
        assert len(receiver.requests) == 1
        assert inner.requests == []
        assert resolver.asked == ["receiver.test"]


def test_a_name_that_was_harmless_at_registration_is_judged_again_at_each_delivery(receiver, make_sender):
    with receiving("127.0.0.2", receiver.port) as inner:
        sender = make_sender(resolver=Answers(["127.0.0.1"], ["127.0.0.2"]))
        url = receiver.url(host="receiver.test")
        sender.check(url)

        with pytest.raises(WebhookAddressRefused, match=r"stands for 127\.0\.0\.2"):
            send(sender, url)

        assert (inner.requests, receiver.requests) == ([], [])


def test_the_next_address_is_tried_when_one_does_not_answer(receiver, make_sender):
    # Nobody listens on the first.
    sender = make_sender(resolver=lambda *_: ["127.0.0.3", "127.0.0.1"], networks=("127.0.0.0/8",))

    assert send(sender, receiver.url(host="receiver.test")) == 204


def test_tls_is_verified_against_the_name_and_not_the_address(make_sender):
    with receiving(tls=True) as secure:
        sender = make_sender(ports=(secure.port,))

        status = send(sender, secure.url(host="receiver.test", scheme="https"))

        assert status == 204
        assert len(secure.requests) == 1


@pytest.mark.parametrize("host", ["other.test", "127.0.0.1"], ids=["another name", "an address"])
def test_a_certificate_for_another_name_is_refused_and_nothing_is_sent(make_sender, host):
    with receiving(tls=True) as secure:
        sender = make_sender(ports=(secure.port,))

        with pytest.raises(WebhookDeliveryFailed, match="certificate"):
            send(sender, secure.url(host=host, scheme="https"))

        assert secure.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused():
    with receiving(tls=True) as secure:
        rules = AddressRules(ports=frozenset({secure.port}), private_hosts=frozenset({"receiver.test"}))
        sender = Sender(rules=rules, timeout_s=5, resolver=lambda *_: ["127.0.0.1"])

        with pytest.raises(WebhookDeliveryFailed, match="certificate"):
            send(sender, secure.url(host="receiver.test", scheme="https"))

        assert secure.requests == []


def test_a_redirect_is_an_answer_and_is_not_followed(receiver, make_sender):
    with receiving() as inner:
        receiver.answers = [(302, {"Location": inner.url()})]

        with pytest.raises(WebhookDeliveryFailed, match="302; redirects are not followed") as caught:
            send(make_sender(ports=(inner.port,)), receiver.url())

        assert caught.value.details["status"] == 302
        assert inner.requests == []


@pytest.mark.parametrize("status", [400, 410, 429, 500, 503])
def test_any_other_answer_is_a_failure_with_its_status(receiver, make_sender, status):
    receiver.answers = [status]

    with pytest.raises(WebhookDeliveryFailed) as caught:
        send(make_sender(), receiver.url())

    assert caught.value.details["status"] == status


def test_nobody_listens(make_sender):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(WebhookDeliveryFailed, match="cannot be reached"):
        send(make_sender(ports=(port,)), f"http://127.0.0.1:{port}/")


def test_proxies_of_the_environment_are_not_used(receiver, make_sender, monkeypatch):
    with receiving() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(""))

        assert send(make_sender(), receiver.url()) == 204
        assert proxy.requests == []


@contextmanager
def speaking(words):
    """A server that takes one connection and says something of its own."""

    def serve():
        with listener.accept()[0] as connection:
            connection.settimeout(10)
            try:
                words(connection)
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(15)
        assert not thread.is_alive()


def drip_headers(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(1000):
        connection.sendall(f"X-{number}: drip\r\n".encode())
        time.sleep(0.02)


def drip_interim_answers(connection):
    for _ in range(1000):
        connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.02)


def say_nothing(connection):
    time.sleep(1.5)


@pytest.mark.parametrize("words", [drip_headers, drip_interim_answers, say_nothing])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_receiver_that_never_comes_to_an_end_is_left_in_time(make_sender, words, scheme):
    with speaking(words) as port:
        sender = make_sender(ports=(port,), timeout_s=0.5)
        began_s = time.monotonic()

        with pytest.raises(WebhookDeliveryFailed):
            send(sender, f"{scheme}://receiver.test:{port}/")

        assert time.monotonic() - began_s < 1.2


def answer_without_end(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def test_an_endless_answer_is_not_read(make_sender):
    with speaking(answer_without_end) as port:
        began_s = time.monotonic()

        status = send(make_sender(ports=(port,)), f"http://receiver.test:{port}/")

        assert status == 200
        assert time.monotonic() - began_s < 1


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), id="another protocol"),
        pytest.param(
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000), id="a long header"
        ),
        pytest.param(lambda connection: connection.sendall(b"HTTP/1.1 abc\r\n\r\n"), id="no status"),
        pytest.param(lambda _connection: None, id="nothing"),
    ],
)
def test_what_is_no_answer_is_a_failure(make_sender, words):
    with speaking(words) as port, pytest.raises(WebhookDeliveryFailed):
        send(make_sender(ports=(port,)), f"http://receiver.test:{port}/")


def test_certificates_that_cannot_be_read_are_a_setting_that_is_wrong(tmp_path):
    with pytest.raises(SettingMissing, match="CA_FILE"):
        Sender(rules=AddressRules(ports=frozenset()), timeout_s=1, ca_file=tmp_path / "absent.pem")
