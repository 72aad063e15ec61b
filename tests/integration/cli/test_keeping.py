"""Collecting, retention, holds and backups, by the real commands on a system that works."""

from __future__ import annotations

import getpass
import json

import pytest
from sqlalchemy import text

from tests.images import draw_part, encode
from tests.integration.cli.conftest import CommandLine


@pytest.fixture(scope="module")
def job(system, tmp_path_factory):
    folder = tmp_path_factory.mktemp("keeping")
    for seed in range(2):
        (folder / f"{seed}.png").write_bytes(encode(draw_part(height=64, seed=seed)[0], "PNG"))
    answer = system.ask("jobs", "submit", folder, "--overlays", "all", "--watch")
    assert answer["images"]["succeeded"] == 2
    return answer["id"]


@pytest.mark.usefixtures("job")
def test_a_dry_run_of_the_collector_finds_nothing_in_a_system_that_is_well(system):
    dry = system.ask("storage", "collect", "--dry-run")
    wet = system.ask("storage", "collect")
    shown = system.run("storage", "collect", "--dry-run")

    assert (dry["examined_objects"], dry["unreferenced"]) == (wet["examined_objects"], {})
    # Two originals, two overlays, a model and at least one mask.
    assert dry["examined_objects"] >= 6
    assert wet["deleted_objects"] == 0
    assert shown.stdout.startswith(f"Looked at {dry['examined_objects']} objects. Would delete 0 objects")


def test_a_hold_keeps_a_job_from_a_rule_until_it_is_removed(system, parts, job):
    database, _ = parts
    with database.transaction() as session:
        for table in ("jobs", "results"):
            session.execute(text(f"UPDATE {table} SET created_at = created_at - interval '9 days'"))  # noqa: S608
    rule = system.ask("retention", "add", "--what", "masks", "--days", 7, "--all")
    hold = system.ask("holds", "add", "--job", job, "--reason", "claim 12")

    held = system.ask("retention", "apply", "--dry-run")
    listed = system.run("retention", "list").stdout + system.run("holds", "list").stdout
    system.ask("holds", "remove", hold["id"])
    freed = system.ask("retention", "apply", "--dry-run")
    system.ask("retention", "remove", rule["id"])

    assert held["rows"] == {str(rule["id"]): 0}
    assert "masks and overlays of all images after 7 days" in listed
    assert f"job {job}" in listed
    assert (rule["actor"], hold["actor"]) == (getpass.getuser(), getpass.getuser())
    assert freed["rows"] == {str(rule["id"]): 2}
    assert system.ask("retention", "list") == {"items": []}
    assert system.ask("holds", "list") == {"items": []}


def test_a_hold_can_be_put_and_a_rule_taken_back_while_the_api_is_down(system, job):
    rule = system.ask("retention", "add", "--what", "originals", "--days", 7, "--job", job)
    cut_off = CommandLine(system.environment | {"DEFECTOSCOPE_API__URL": "http://127.0.0.1:1"})

    hold = cut_off.ask("holds", "add", "--job", job, "--reason", "claim 13", "--database")
    removed = cut_off.ask("retention", "remove", rule["id"], "--database")
    refused = cut_off.run("holds", "add", "--job", 10**6, "--reason", "none", "--database")

    assert removed == rule
    assert system.ask("holds", "list")["items"] == [hold]
    assert (refused.returncode, "(job_not_found)" in refused.stderr) == (1, True)
    entries = system.ask("audit", "list", "--limit", 2)["items"]
    assert [(entry["actor"], entry["token_id"], entry["action"], entry["subject"]) for entry in entries] == [
        (getpass.getuser(), None, "defectoscope retention remove --database", f"retention-rules/{rule['id']}"),
        (getpass.getuser(), None, "defectoscope holds add --database", f"holds/{hold['id']}"),
    ]
    assert system.run("holds", "remove", hold["id"]).stdout == f"Removed hold {hold['id']} on job {job}.\n"


def test_rules_are_followed_at_once_when_asked(system, parts, job):
    database, _ = parts
    with database.transaction() as session:
        for table in ("jobs", "images"):
            session.execute(text(f"UPDATE {table} SET created_at = created_at - interval '9 days'"))  # noqa: S608
    rule = system.ask("retention", "add", "--what", "originals", "--days", 7, "--all")

    done = system.run("retention", "apply")
    again = system.ask("retention", "apply")
    system.ask("retention", "remove", rule["id"])
    with database.transaction() as session:
        session.execute(text("UPDATE images SET deleted_at = NULL"))

    assert done.stdout == "2 results and images were given up under 1 rule.\n"
    assert again["rows"] == {str(rule["id"]): 0}


def test_masks_that_were_given_up_are_left_out_of_a_download_and_made_again_by_a_new_job(system, parts, job, tmp_path):
    database, _ = parts
    with database.transaction() as session:
        session.execute(text("UPDATE results SET deleted_at = now()"))

    first = system.ask("results", "download", "--job", job, "--out", tmp_path / "first")
    shown = system.run("results", "show", 1)
    uris = [item["source_uri"] for item in system.ask("jobs", "items", job)["items"]]
    (tmp_path / "keys").write_text("".join(f"{uri}\n" for uri in uris))
    again = system.ask("jobs", "submit", "--keys", tmp_path / "keys", "--overlays", "all", "--watch")
    second = system.ask("results", "download", "--job", again["id"], "--out", tmp_path / "second")

    assert (first["masks"], first["overlays"]) == (0, 0)
    assert "deleted" in shown.stdout
    assert (second["masks"], second["overlays"]) == (2, 2)


def test_a_backup_puts_back_what_the_bucket_lost_and_spares_a_database_with_rows(system, parts, job, tmp_path):
    database, storage = parts
    made = system.ask("backup", "create", tmp_path / "backup")
    with database.transaction() as session:
        mask_key = session.execute(text("SELECT mask_key FROM results LIMIT 1")).scalar_one()
    mask = storage.get(mask_key)
    storage.delete([mask_key])

    refused = system.run("backup", "restore", tmp_path / "backup")
    storage.delete([mask_key])
    put_back = system.ask("backup", "restore", tmp_path / "backup", "--objects-only")

    assert made["objects"] == put_back["objects"]
    assert (refused.returncode, "(database_not_empty)" in refused.stderr) == (1, True)
    assert put_back["put_back"] == 1
    assert storage.get(mask_key) == mask
    assert json.loads((tmp_path / "backup" / "manifest.json").read_text())["tables"]["jobs"]["rows"] >= 1
    assert system.ask("jobs", "show", job)["id"] == job
