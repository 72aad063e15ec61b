"""`defectoscope images`: list, show and add images, without inspecting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import Cell, print_facts, print_json, print_json_items, print_table
from defectoscope.cli.session import JsonOption, LimitOption, open_client

app = typer.Typer(no_args_is_help=True, help="List, show and add images, without inspecting them.")


@app.command("list")
def list_images(
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Only the one with this content.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List images."""
    with open_client() as client:
        images = client.images.list(sha256=sha256, limit=limit or None)
        if as_json:
            print_json_items(images)
            return
        print_table(
            {"image": "right", "size px": "right", "sha256": "left", "source": "left"},
            [[image["id"], _size(image), image["sha256"][:12] + "…", image.get("source_uri")] for image in images],
            empty="There are no such images.",
        )


@app.command()
def show(
    image_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the image.")], as_json: JsonOption = False
) -> None:
    """Show an image."""
    with open_client() as client:
        image = client.images.get(image_id)
    _print_image(image, as_json=as_json)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An image: PNG, JPEG, TIFF, BMP or WebP.")],
    as_json: JsonOption = False,
) -> None:
    """Store an image and register it; the same bytes are the same image."""
    with open_client() as client:
        image = client.images.add(file)
    _print_image(image, as_json=as_json)


def _print_image(image: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(image)
        return
    facts: dict[str, Cell] = {
        f"Image {image['id']}": f"{_size(image)} px",
        "  sha256": image["sha256"],
        "  source": image.get("source_uri"),
        "  registered": format_time(image.get("created_at")),
    }
    print_facts(facts)


def _size(image: dict[str, Any]) -> str:
    width, height = image["size_wh"] if "size_wh" in image else (image["width"], image["height"])
    return f"{width} x {height}"
