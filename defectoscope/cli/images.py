"""`defectoscope images`: list, show and add images, without inspecting them, and let them out of quarantine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from defectoscope.cli.moments import format_time
from defectoscope.cli.output import (
    answer,
    format_bytes,
    print_facts,
    print_json,
    print_json_items,
    print_table,
    print_title,
)
from defectoscope.cli.session import JsonOption, LimitOption, open_client

app = typer.Typer(
    no_args_is_help=True, help="List, show and add images, without inspecting them; let them out of quarantine."
)


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


@app.command()
def quarantined(limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List images that took down their workers until they were given up; jobs fail them at once."""
    with open_client() as client:
        images = client.images.quarantined(limit=limit or None)
        if as_json:
            print_json_items(images)
            return
        print_table(
            {"quarantined": "right", "image": "left", "job": "right", "since": "left", "sha256": "left", "at": "left"},
            [
                [
                    image["id"],
                    image["name"],
                    image["job_id"],
                    format_time(image["created_at"]),
                    image["sha256"] and image["sha256"][:12] + "…",
                    image["source_uri"],
                ]
                for image in images
            ],
            empty="No image is in quarantine.",
        )


@app.command()
def release(
    quarantined_id: Annotated[int, typer.Argument(metavar="ID", help="Its number in `images quarantined`.")],
    as_json: JsonOption = False,
) -> None:
    """Let an image out of quarantine: `jobs retry`, and every later job, hands it to workers again."""
    with open_client() as client:
        image = client.images.release(quarantined_id)
    answer(
        image, f"{image['name']} is out of quarantine; try it again with `defectoscope jobs retry`.", as_json=as_json
    )


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
            "deleted": format_time(image["deleted_at"]),
            "registered": format_time(image["created_at"]),
        },
        indent=2,
    )


def _size(image: dict[str, Any]) -> str:
    return f"{image['width']} x {image['height']}"
