"""Tokens and the audit log at the command line."""

from __future__ import annotations

import getpass

import pytest

from defectoscope.access.tokens import read_token
from tests.integration.cli.conftest import CommandLine


def with_token(system, token):
    return CommandLine(system.environment | {"DEFECTOSCOPE_API__TOKEN": token})


@pytest.fixture(scope="module")
def made(system):
    """A token of an operator, made at the command line."""
    return system.ask("tokens", "create", "--name", "line-3", "--scope", "operator", "--days", "30")


def test_the_token_alone_goes_to_standard_output(system):
    done = system.run("tokens", "create", "--name", "camera")

    assert read_token(done.stdout.strip()).text == done.stdout.strip()
    assert "camera (viewer)" in done.stderr
    assert "shown this once" in done.stderr
    assert done.stdout.strip() not in done.stderr


def test_a_token_opens_what_its_scope_allows(system, made):
    operator = with_token(system, made["token"])

    listed = operator.run("jobs", "list")
    refused = operator.run("models", "retire", "1", "--reason", "to see")

    assert listed.returncode == 0
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "needs an API token of the scope admin" in refused.stderr
    assert "(scope_too_small)" in refused.stderr


def test_a_token_is_listed_without_its_text_and_revoked(system):
    made = system.ask("tokens", "create", "--name", "leaver", "--scope", "trainer")
    listed = system.run("tokens", "list")
    revoked = system.ask("tokens", "revoke", str(made["id"]))
    refused = with_token(system, made["token"]).run("jobs", "list")

    assert "leaver" in listed.stdout
    assert read_token(made["token"]).secret not in listed.stdout
    assert revoked["revoked_at"]
    assert (refused.returncode, refused.stderr) == (
        1,
        f"error: The API token {made['id']} was revoked. (token_revoked)\n",
    )


def test_without_a_token_the_command_says_where_one_is_taken_from(system):
    without = {name: value for name, value in system.environment.items() if name != "DEFECTOSCOPE_API__TOKEN"}

    done = CommandLine(without).run("jobs", "list")

    assert done.returncode == 1
    assert "DEFECTOSCOPE_API__TOKEN" in done.stderr
    assert "(token_missing)" in done.stderr


def test_a_mistyped_token_is_noticed_before_it_is_sent_and_not_repeated(system, made):
    mistyped = made["token"][:-1] + ("a" if made["token"][-1] != "a" else "b")
    elsewhere = {"DEFECTOSCOPE_API__URL": "http://127.0.0.1:9", "DEFECTOSCOPE_API__TOKEN": mistyped}

    done = CommandLine(system.environment | elsewhere).run("jobs", "list")

    assert done.returncode == 1
    assert "(token_malformed)" in done.stderr
    assert mistyped not in done.stdout + done.stderr


def test_a_first_token_is_written_into_the_database_without_an_api(system):
    without_api = {**system.environment, "DEFECTOSCOPE_API__URL": "http://127.0.0.1:9"}
    del without_api["DEFECTOSCOPE_API__TOKEN"]

    made = CommandLine(without_api).ask("tokens", "create", "--database", "--name", "root", "--scope", "admin")

    assert (made["name"], made["scope"], made["created_by"]) == ("root", "admin", getpass.getuser())
    assert with_token(system, made["token"]).ask("tokens", "list")["items"][0]["id"] == made["id"]


def test_the_audit_log_tells_who_asked_for_what(system, made):
    with_token(system, made["token"]).run("jobs", "cancel", "999")

    of_token = system.ask("audit", "list", "--token", str(made["id"]))["items"]
    everything = system.ask("audit", "list", "--limit", "0")["items"]
    shown = system.run("audit", "list", "--token", str(made["id"]))

    # The second one is the test above.
    assert [(entry["actor"], entry["subject"], entry["error_code"]) for entry in of_token] == [
        ("line-3", "jobs/999", "job_not_found"),
        ("line-3", "models/1", "scope_too_small"),
    ]
    assert ("defectoscope tokens create --database", None) in {
        (entry["action"], entry["token_id"]) for entry in everything
    }
    assert "404 job_not_found" in shown.stdout
