"""Whatever happens to chunks, in whatever order: nothing is lost, nothing is done twice, and everything ends."""

from __future__ import annotations

from tests.integration.ownership.machine import drive


def test_whatever_happens_in_whatever_order_nothing_is_lost_nothing_is_done_twice_and_everything_ends(migrated_url):
    drive(migrated_url)
