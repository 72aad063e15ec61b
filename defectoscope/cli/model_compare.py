"""`defectoscope models compare`: one version against another on the same validation images, and the gate's word."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from defectoscope.cli.output import Cell, print_facts, print_json, print_table, print_title, say, state_text
from defectoscope.cli.session import JsonOption, open_client

_SENTENCE_WIDTH = 90


def compare(
    a: Annotated[int, typer.Argument(metavar="A", min=1, help="Version in the champion's place.")],
    b: Annotated[int, typer.Argument(metavar="B", min=1, help="Version that would replace it.")],
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME@N", help="Revision to compare on; by default the latest both were scored on."),
    ] = None,
    images: Annotated[int, typer.Option(metavar="N", min=0, help="Images shown at either end; 0 for all.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Compare two model versions image by image, and say what the gate would decide.

    The figure of an image is the IoU of its defects; the difference is B less A. The interval comes from a bootstrap
    over groups of images that show the same part.
    """
    with open_client() as client:
        found = client.models.compare(a, b, dataset=dataset)
    if as_json:
        print_json(found)
        return
    verdict = Text("the gate would promote it", style="green")
    if not found["would_promote"]:
        verdict = Text("the gate would refuse it", style="yellow")
    print_title(f"Model {b} against model {a} on {found['dataset']}", verdict)
    print_facts(_facts(found), indent=2)
    say()
    print_table(
        {"demand": "left", "holds": "left", "figure": "right", "limit": "right", "": "left"},
        [
            [
                check["name"].replace("_", " "),
                _holds(check["holds"]),
                None if check["figure"] is None else f"{check['figure']:.4f}",
                f"{check['limit']:.4f}",
                check["sentence"],
            ]
            for check in found["checks"]
        ],
        empty="The gate demands nothing.",
        indent=2,
        column_width=_SENTENCE_WIDTH,
    )
    _print_images(found, shown=images)


def _facts(found: dict[str, Any]) -> dict[str, Cell]:
    figures = found["figures"]
    champion, challenger, difference = figures["champion"], figures["challenger"], figures["difference"]
    return {
        "images": f"{figures['images']} in {figures['groups']} groups, {figures['defective_images']} with defects",
        "mean IoU": f"{champion['mean_iou']:.4f} under model {found['a']}, "
        f"{challenger['mean_iou']:.4f} under model {found['b']}",
        "pooled IoU": f"{champion['pooled_iou']:.4f} and {challenger['pooled_iou']:.4f}",
        "difference": f"{difference['mean']:+.4f}, between {difference['low']:+.4f} and {difference['high']:+.4f} "
        f"with {1 - 2 * difference['tail']:.0%} confidence",
        "best version": None if found["best_ever"] is None else f"model {found['best_ever']}",
    }


def _holds(holds: bool | None) -> Text:
    if holds is None:
        return Text("not judged", style="dim")
    return state_text("ok") if holds else Text("no", style="bold red")


def _print_images(found: dict[str, Any], *, shown: int) -> None:
    images = found["images"]
    ends = [*images[:shown], *images[max(shown, len(images) - shown) :]] if shown else images
    left_out = len(images) - len(ends)
    say()
    say("  Images, the greatest loss first", style="bold")
    print_table(
        {"image": "left", f"model {found['a']}": "right", f"model {found['b']}": "right", "difference": "right"},
        [[image["name"], f"{image['a']:.3f}", f"{image['b']:.3f}", f"{image['difference']:+.3f}"] for image in ends],
        empty="There are none.",
        indent=2,
    )
    if left_out:
        between = "1 image in between is" if left_out == 1 else f"{left_out} images in between are"
        say(f"  {between} left out; --images 0 shows all.", style="dim")
