from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer

from defectoscope.cli.model_figures import describe_figures, describe_operating_point
from defectoscope.cli.model_imports import read_size
from defectoscope.cli.model_ledger import describe_action
from defectoscope.cli.moments import read_moment


@pytest.fixture
def in_yekaterinburg(monkeypatch):
    """This machine's time zone is five hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Yekaterinburg")
    time.tzset()
    yield
    monkeypatch.delenv("TZ")
    time.tzset()
    assert "TZ" not in os.environ


@pytest.mark.usefixtures("in_yekaterinburg")
@pytest.mark.parametrize(
    ("text", "moment"),
    [
        pytest.param("2026-11-23T02:00", datetime(2026, 11, 22, 21, 0, tzinfo=UTC), id="local"),
        pytest.param("2026-11-23", datetime(2026, 11, 22, 19, 0, tzinfo=UTC), id="a date"),
        pytest.param("2026-11-23T02:00Z", datetime(2026, 11, 23, 2, 0, tzinfo=UTC), id="UTC"),
        pytest.param(
            "2026-11-23 02:00:01.5+03:00",
            datetime(2026, 11, 23, 2, 0, 1, 500_000, tzinfo=timezone(timedelta(hours=3))),
            id="another zone",
        ),
    ],
)
def test_a_moment_is_local_unless_it_names_a_zone(text, moment):
    assert read_moment(text) == moment
    assert read_moment(text).tzinfo is not None


@pytest.mark.parametrize("text", ["", "yesterday", "02:00", "2026-13-01", "2026-11-23T25:00"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(typer.BadParameter):
        read_moment(text)


@pytest.mark.parametrize(("text", "size"), [(None, None), ("256x128", [256, 128])], ids=["none", "a size"])
def test_a_size_is_read(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["256", "0x256", "256 x 256", "x", "99999x1"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(typer.BadParameter):
        read_size(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(("promoted", None), "promoted", id="the first one"),
        pytest.param(("promoted", 2), "promoted, was 2", id="promoted"),
        pytest.param(("rolled_back", 5), "rolled back, was 5", id="rolled back"),
        pytest.param(("refused", 2), "refused against 2", id="refused"),
        pytest.param(("weights_dropped", None), "weights dropped", id="dropped"),
    ],
)
def test_a_line_of_the_ledger_is_said_in_a_few_words(line, words):
    action, previous = line

    assert str(describe_action({"action": action, "previous_version": previous})) == words


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        pytest.param(None, {}, id="nothing"),
        pytest.param({"mask_iou": 0.99951234}, {"mask iou": "0.9995"}, id="rounded"),
        pytest.param({"tuned": False, "images": 16}, {"tuned": "no", "images": 16}, id="as it is"),
        pytest.param({"costs": {"escape": 10.0}}, {"costs, escape": "10"}, id="nested"),
        pytest.param({"sizes": [1, 2], "none": []}, {"sizes": "1, 2", "none": None}, id="lists"),
        pytest.param({"sha256": "ab" * 32}, {"sha256": "abababababab…"}, id="a hash"),
    ],
)
def test_figures_are_said_for_people(figures, told):
    assert describe_figures(figures) == told


def test_an_operating_point_is_said_with_both_error_rates():
    rate = {"mean": 0.025, "low": 0.0, "high": 0.1, "images": 40, "groups": 31}
    point = {
        "tuned": True,
        "objective": "cost",
        "note": "Chosen by the least expected cost.",
        "escape_rate": rate,
        "false_call_rate": None,
        "curve": [{"threshold": 0.5}],
    }

    assert describe_operating_point(point) == {
        "settings chosen": "on validation by the least cost",
        "": "Chosen by the least expected cost.",
        "escapes": "2.5% (0.0% to 10.0%) of 40 defective images called clean",
        "false calls": "unknown: validation holds no such images",
    }
    assert describe_operating_point(point | {"tuned": False})["settings chosen"] == "not on validation"
    assert describe_operating_point(None) == {}
