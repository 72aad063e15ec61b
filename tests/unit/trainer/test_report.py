"""The page about a run: complete in itself, safe against any name, honest about which images it shows."""

from __future__ import annotations

import io
import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from defectoscope.segmentation import PixelCounts
from tests.images import encode
from tests.unit.trainer.parts import TINY, write_parts
from trainer.build import contract_of, score_figures
from trainer.config import TrainingConfig
from trainer.curves import BOTTOM_PX, HEIGHT_PX, LEFT_PX, RIGHT_PX, TOP_PX, WIDTH_PX, plot
from trainer.data import LabelledFile, LocalFile, read_directory
from trainer.evaluate import ScoredImage, evaluate
from trainer.overlays import LABEL_RGB, MAX_SIDE_PX, PREDICTION_RGB, ValidationOverlay, choose, draw_overlays
from trainer.report import render_report, write_report

CONTRACT = contract_of(TrainingConfig.resolve(TINY), dataset_revision=None)
HOSTILE = "images/<script>alert('x')</script>\"&amp;{{7*7}}<img src=http://example.org/x.png onerror=alert(1)>.png"
EPOCHS = [
    {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "val_loss": 1.2 / epoch,
        "val_iou_defect": 0.1 * epoch,
        "val_iou_mean": 0.5,
        "val_dice": 0.6,
        "learning_rate": 1e-3,
        "images_per_s": 50.0,
    }
    for epoch in range(1, 7)
]


class _Page(HTMLParser):
    """Elements with their attributes, and the text, as a browser would see them."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += f"{data}\n"

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _render(**changes):
    arguments = {"title": "Training run 12", "facts": {}, "recipe": {}, "epochs": [], "figures": {}, "overlays": []}
    return _Page(render_report(**{**arguments, **changes}))


def _overlay(name="a.png", picture=b"jpeg"):
    counts = PixelCounts(3, 4, 5, 6)
    return ValidationOverlay(name=name, rank="worst", counts=counts, plain=picture, outlined=picture, size_wh=(9, 7))


def _score(name, counts):
    source = LocalFile(name)
    return ScoredImage(file=LabelledFile(name=name, image=source, label=source), counts=PixelCounts(*counts))


def _claims_dark(images):
    """An engine that takes what is dark for a defect."""
    return np.where(images.mean(axis=3) < 100, np.uint8(255), np.uint8(0))


def _claims_nothing(images):
    return np.zeros(images.shape[:3], dtype=np.uint8)


def _decode(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def _is_near(picture, rgb, *, distance=90):
    return np.abs(picture - np.array(rgb)).sum(axis=2) < distance


def test_a_page_runs_nothing_and_asks_for_nothing():
    page = _render(epochs=EPOCHS, figures={"best_epoch": 3}, overlays=[_overlay()])

    policies = [meta["content"] for meta in page.named("meta") if "http-equiv" in meta]
    addresses = [
        value for _, attributes in page.elements for name, value in attributes.items() if name in {"src", "href"}
    ]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.elements}
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"overlays": [_overlay(HOSTILE)]}, id="an image's name"),
        pytest.param({"title": HOSTILE}, id="the title"),
        pytest.param({"facts": {HOSTILE: HOSTILE}}, id="a fact"),
        pytest.param({"recipe": {"encoder_weights": HOSTILE}}, id="the recipe"),
        pytest.param({"figures": {"gate": {"slices": [{HOSTILE: HOSTILE}]}}}, id="a table"),
        pytest.param({"figures": {HOSTILE: {"reason": HOSTILE}}}, id="the name of a table"),
    ],
)
def test_a_hostile_text_stays_a_text(changes):
    page = _render(**changes)

    assert HOSTILE in page.text
    assert not page.named("script")
    assert all(image["src"].startswith("data:") for image in page.named("img"))


def test_a_name_that_is_not_utf_8_can_be_written(tmp_path):
    write_report(
        tmp_path / "report.html",
        title="Run",
        facts={},
        recipe={},
        epochs=[],
        figures={},
        overlays=[_overlay("part-\udcff.png")],
    )

    assert "part-\\udcff.png" in (tmp_path / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_facts_recipe_and_figures_are_all_on_the_page():
    page = _render(
        facts={"dataset": "tiles@3"},
        recipe={"input_size_wh": [256, 128], "autocast": None},
        epochs=EPOCHS,
        figures={
            "train_images": 376,
            "val_images": 94,
            "best_epoch": 3,
            "epochs_run": 6,
            "training_seconds": 185.2,
            "validation": score_figures([PixelCounts(3, 1, 0, 9)]),
            "operating_point": {"threshold": 0.37, "escape_rate": {"low": 0.01, "high": math.nan}},
            "gate": {"promoted": True, "slices": [{"slice": "small defects", "n": 7}, {"slice": "large", "n": None}]},
        },
    )

    lines = [line.strip() for line in page.text.split("\n") if line.strip()]
    pairs = set(pairwise(lines))
    assert {
        ("0.750", "IoU of the defect, all validation pixels"),
        ("376 / 94", "training and validation images"),
        ("3 / 6", "best epoch, of all that were run"),
        ("3 min 5 s", "of training"),
        ("Dataset", "tiles@3"),
        ("Train images", "376"),
        ("Input size (width, height)", "256, 128"),
        ("Autocast", "–"),  # noqa: RUF001 -- as on the page
        ("Threshold", "0.37"),
        ("Escape rate, low", "0.01"),
        ("Escape rate, high", "not a number"),
        ("Promoted", "yes"),
        ("small defects", "7"),
    } <= pairs


def test_figures_of_the_same_kind_stand_side_by_side():
    page = _render(
        figures={"variants": {"fp32": {"mask_iou": 0.9999, "reason": None}, "int8": {"mask_iou": 0.97, "flips": 2}}}
    )

    lines = [line.strip() for line in page.text.split("\n") if line.strip()]
    start = lines.index("Variants")
    assert lines[start + 1 : start + 12] == [
        *("Fp32", "Int8"),
        *("Mask IoU", "0.9999", "0.97"),
        *("Reason", "–", "–"),  # noqa: RUF001 -- as on the page
        *("Flips", "–", "2"),  # noqa: RUF001 -- as above
    ]


def test_a_long_table_says_what_it_leaves_out():
    page = _render(figures={"curve": [{"threshold": number} for number in range(100)]})

    assert "40 further rows are not shown." in page.text


def test_a_run_without_epochs_images_or_figures_still_has_a_page():
    page = _render()

    assert "Training run 12" in page.text
    assert not page.named("svg")
    assert not page.named("img")


def test_the_best_epoch_is_marked_in_every_chart():
    page = _render(epochs=EPOCHS, figures={"best_epoch": 3})

    charts = [attributes["aria-label"] for attributes in page.named("svg") if "aria-label" in attributes]
    assert charts == [
        "Loss by epoch",
        "Validation scores by epoch",
        "Learning rate by epoch",
        "Speed by epoch",
    ]
    assert page.text.count("best epoch 3") == len(charts)


def test_a_curve_runs_from_the_first_epoch_to_the_last_inside_the_chart():
    chart = plot("Scores", {"val_iou_defect": "IoU"}, EPOCHS, marked_epoch=3, top=1.0)

    points = [tuple(map(float, point.split())) for point in chart.lines[0].paths[0].lstrip("M").split("L")]
    height_px = HEIGHT_PX - BOTTOM_PX - TOP_PX
    assert points[0] == (LEFT_PX, pytest.approx(HEIGHT_PX - BOTTOM_PX - 0.1 * height_px, abs=0.1))
    assert points[-1] == (WIDTH_PX - RIGHT_PX, pytest.approx(HEIGHT_PX - BOTTOM_PX - 0.6 * height_px, abs=0.1))
    assert chart.lines[0].marked == points[2]
    assert [text for _, text in chart.y_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


@pytest.mark.parametrize("gap", [pytest.param(math.nan, id="not a number"), pytest.param(None, id="missing")])
def test_a_curve_has_a_gap_where_there_is_no_number(gap):
    epochs = [{"epoch": epoch, "train_loss": gap if epoch == 3 else 1.0} for epoch in range(1, 6)]

    chart = plot("Loss", {"train_loss": "training", "val_loss": "validation"}, epochs, marked_epoch=3)

    assert [line.label for line in chart.lines] == ["training"]
    assert len(chart.lines[0].paths) == 2
    assert chart.lines[0].marked is None


def test_one_epoch_is_a_dot_in_the_middle():
    chart = plot("Loss", {"train_loss": "training"}, EPOCHS[:1], marked_epoch=1)

    assert chart.marked_x == (LEFT_PX + WIDTH_PX - RIGHT_PX) / 2
    assert len(set(chart.lines[0].paths[0].lstrip("M").split("L"))) == 1
    assert [text for _, text in chart.x_ticks] == ["1"]


def test_a_loss_over_several_orders_of_magnitude_gets_a_logarithmic_axis():
    epochs = [{"epoch": epoch, "train_loss": 10.0**-epoch} for epoch in range(4)]

    chart = plot("Loss", {"train_loss": "training"}, epochs, marked_epoch=None, may_be_log=True)

    heights = [float(point.split()[1]) for point in chart.lines[0].paths[0].lstrip("M").split("L")][:4]
    assert chart.title == "Loss, logarithmic"
    assert [text for _, text in chart.y_ticks] == ["0.001", "0.01", "0.1", "1"]
    assert np.allclose(np.diff(heights, 2), 0, atol=0.2)


def test_a_curve_of_very_many_epochs_stays_small_and_keeps_the_best_and_the_last():
    epochs = [{"epoch": epoch, "val_dice": 0.5} for epoch in range(1, 10_001)]

    chart = plot("Scores", {"val_dice": "Dice"}, epochs, marked_epoch=4321, top=1.0)

    assert 300 < chart.lines[0].paths[0].count("L") < 500
    assert chart.lines[0].marked is not None
    assert f"{WIDTH_PX - RIGHT_PX} " in chart.lines[0].paths[0]
    assert chart.lines[0].spots == ()


def test_the_worst_images_come_first_and_none_comes_twice():
    scores = [_score(f"{number:02}.png", (number, 30 - number, 0, 9)) for number in range(30)]

    chosen = [(rank, score.file.name) for rank, score in choose(list(reversed(scores)))]

    assert chosen[:6] == [("worst", f"{number:02}.png") for number in range(6)]
    assert chosen[-3:] == [("best", f"{number:02}.png") for number in (27, 28, 29)]
    assert [rank for rank, _ in chosen[6:-3]] == ["between"] * 3
    assert len({name for _, name in chosen}) == 12


@pytest.mark.parametrize("count", range(14))
def test_few_images_are_all_shown_once(count):
    scores = [_score(f"{number:02}.png", (number + 1, 3, 0, 9)) for number in range(count)]

    names = [score.file.name for _, score in choose(scores)]

    assert len(set(names)) == len(names) == min(count, 12)


def test_of_two_images_without_any_overlap_the_one_with_more_wrong_pixels_is_worse():
    scores = [_score("few.png", (0, 1, 2, 9)), _score("many.png", (0, 40, 2, 9))]

    assert [score.file.name for _, score in choose(scores)] == ["many.png", "few.png"]


def test_clean_images_rightly_left_clean_are_shown_only_when_there_is_nothing_else():
    clean, found = _score("clean.png", (0, 0, 0, 9)), _score("found.png", (5, 1, 0, 9))

    with_defects, without = ([score.file.name for _, score in choose(scores)] for scores in ([clean, found], [clean]))

    assert with_defects == ["found.png"]
    assert without == ["clean.png"]


def test_label_and_prediction_are_both_outlined_on_a_picture_that_fits_the_page(parts_dir):
    files = read_directory(parts_dir).val

    scores = evaluate(files, engine=_claims_dark, contract=CONTRACT)
    overlays = draw_overlays(scores, engine=_claims_dark, contract=CONTRACT)

    assert len(overlays) == 7  # the eighth part is clean, and left so
    for overlay in overlays:
        plain, outlined = _decode(overlay.plain), _decode(overlay.outlined)
        assert plain.shape == outlined.shape == (overlay.size_wh[1], overlay.size_wh[0], 3)
        assert MAX_SIDE_PX / 2 < max(overlay.size_wh) <= MAX_SIDE_PX
        assert _is_near(outlined, LABEL_RGB).sum() > 20
        assert _is_near(outlined, PREDICTION_RGB).sum() > 20
        assert not _is_near(plain, LABEL_RGB).any()


def test_a_defect_of_one_pixel_in_a_large_image_leaves_a_mark(tmp_path):
    write_parts(tmp_path, split="val", sizes_wh=[(64, 64)])
    class_mask = np.zeros((2000, 3000), dtype=np.uint8)
    class_mask[1000, 1500] = 255
    pixels = np.full((2000, 3000, 3), 200, dtype=np.uint8)
    for kind, array in (("images", pixels), ("labels", class_mask)):
        (tmp_path / kind / "val" / "part-0.png").write_bytes(encode(array, "PNG"))
    file = LabelledFile(
        name="large",
        image=LocalFile(tmp_path / "images" / "val" / "part-0.png"),
        label=LocalFile(tmp_path / "labels" / "val" / "part-0.png"),
    )

    scores = evaluate([file], engine=_claims_nothing, contract=CONTRACT)
    overlay = draw_overlays(scores, engine=_claims_nothing, contract=CONTRACT)[0]

    assert overlay.counts.fn == 1
    assert overlay.size_wh == (384, 256)
    rows, columns = np.nonzero(_is_near(_decode(overlay.outlined), LABEL_RGB, distance=150))
    assert (abs(rows - 128) <= 4).all()
    assert (abs(columns - 192) <= 4).all()
    assert len(rows) >= 2


def test_a_stop_is_heard_between_two_pictures(parts_dir):
    scores = evaluate(read_directory(parts_dir).val, engine=_claims_nothing, contract=CONTRACT)
    asked = []

    def stop():
        asked.append(True)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        draw_overlays(scores, engine=_claims_nothing, contract=CONTRACT, check=stop)

    assert len(asked) == 1


def test_the_page_stays_below_three_megabytes_for_images_that_cannot_be_compressed(tmp_path):
    rng = np.random.default_rng(0)
    files = []
    for number in range(12):
        noise = rng.integers(0, 256, (400, 400, 3), dtype=np.uint8)
        label = np.zeros((400, 400), dtype=np.uint8)
        label[100:200, 100:200] = 255
        for kind, array in (("image", noise), ("label", label)):
            (tmp_path / f"{kind}-{number}.png").write_bytes(encode(array, "PNG"))
        image, label_file = (LocalFile(tmp_path / f"{kind}-{number}.png") for kind in ("image", "label"))
        files.append(LabelledFile(name=f"{number}", image=image, label=label_file))

    scores = evaluate(files, engine=_claims_nothing, contract=CONTRACT)
    overlays = draw_overlays(scores, engine=_claims_nothing, contract=CONTRACT)
    page = render_report(title="Run", facts={}, recipe={}, epochs=EPOCHS * 20, figures={}, overlays=overlays)

    assert len(overlays) == 12
    assert len(re.findall("data:image/jpeg", page)) == 24
    assert len(page.encode()) < 3_000_000
