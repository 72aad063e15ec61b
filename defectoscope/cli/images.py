"""`defectoscope images`: list, show and add images, without inspecting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import format_bytes, print_facts, print_json, print_json_items, print_table, print_title
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
            {
                "image": "right",
                "format": "left",
                "size px": "right",
                "bytes": "right",
                "sha256": "left",
                "found": "left",
            },
            [
                [
                    image["id"],
                    image["format"],
                    _size(image),
                    format_bytes(image["size_bytes"]),
                    image["sha256"][:12] + "…",
                    image["source_uri"],
                ]
                for image in images
            ],
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
    print_title(f"Image {image['id']}")
    print_facts(
        {
            "file": f"{image['format']}, {image['source_mode']}, {_size(image)} px",
            "size": format_bytes(image["size_bytes"]),
            "sha256": image["sha256"],
            "first found": image["source_uri"],
            "stored": image["uri"],
            "registered": format_time(image["created_at"]),
        },
        indent=2,
    )


def _size(image: dict[str, Any]) -> str:
    return f"{image['width']} x {image['height']}"
