"""`python -m benchmarks.compare`: the worker and its peers on the same files from the same storage, in turns.

What a peer is and what is timed: `benchmarks.peers.steps`. The worker's turn is timed from the first claim to the last
commit, in this process, with its model loaded and warm; beside the mask it measures the defects and records every
result in PostgreSQL, which no peer does. The servers run on the same machine and serve everybody.

Every turn has new pictures, the same for all sides: a worker that stored a mask once does not store it again.

The network is trained on drawn samples for a few minutes, so that masks look like masks and IoU means something: its
defect class is scored against what was drawn, pooled over all pixels of all images and turns. That figure of the worker
(int8) may differ from the notebook's (fp32) by 0.005 and no more; the two masks against each other are printed as well.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.figures import median_ratio
from benchmarks.models import add_model_options, enough_images, model_to_measure
from benchmarks.ours import Ours
from benchmarks.output import add_out_option, write_figures
from benchmarks.peers.running import PEERS, Peer, PeerFailed, Turn, make_environment, run_peer
from benchmarks.peers.steps import Work
from benchmarks.place import DrawnImage, draw_images, make_place, scratch_directory, store_images
from benchmarks.processes import cpu_s, machine_facts
from defectoscope.connect import s3_config
from defectoscope.embedded.stack import Connections, EmbeddedStack
from defectoscope.logs import configure_logs
from defectoscope.segmentation import PixelCounts, UInt8Array, count_pixels
from defectoscope.storage import Storage, open_s3
from worker.device import has_vnni

#: How far the worker's IoU may be from the notebook's.
IOU_TOLERANCE = 0.005
BATCH_SIZE = 8
_WARM_UP_SEED = 1
_IMAGE_SEED = 2
_OURS = "this worker"
_LEAST_IOU = 0.2
_NO_PIXELS = PixelCounts(0, 0, 0, 0)


@dataclass(slots=True, kw_only=True)
class Side:
    """What came of one side; the n-th turns of all sides belong together.

    Attributes:
        name: as the table has it.
        turns: in order.
        servers_cpu_s: CPU seconds of storage, database and broker in each turn.
        counts: pixels of its masks against what was drawn, over all turns.
        counts_with_ours: of the worker's masks against its own.
        failure: why there is no turn.
        variant: which file of the model it ran.
    """

    name: str
    turns: list[Turn] = field(default_factory=list)
    servers_cpu_s: list[float] = field(default_factory=list)
    counts: PixelCounts = _NO_PIXELS
    counts_with_ours: PixelCounts = _NO_PIXELS
    failure: str | None = None
    variant: str = "int8"

    @property
    def seconds(self) -> list[float]:
        """Of each turn."""
        return [turn.seconds for turn in self.turns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is compared, and how often."""

    encoder: str
    size_wh: tuple[int, int]
    images: int
    repeats: int
    training_s: float
    models: Path
    environments: Path
    peers: Sequence[Peer]


def compare(options: Options, *, stack: EmbeddedStack, connections: Connections, scratch: Path) -> list[Side]:
    """Let everybody take turns.

    Args:
        options: what and how often.
        stack: whose servers run.
        connections: how to reach them.
        scratch: an existing directory.

    Returns:
        The worker first.
    """
    made = model_to_measure(options.encoder, kept_in=options.models, training_s=options.training_s)
    # No peer drops small regions, and masks are to be compared.
    model = replace(made, contract=replace(made.contract, min_area_px=1))
    threads = machine_facts()["cores"]
    place = make_place(
        connections,
        scratch=scratch,
        sections={"worker": {"batch_size": BATCH_SIZE, "intra_op_threads": threads, "variant": "int8"}},
    )
    storage = open_s3(s3_config(place.settings))
    servers = list(stack.supervisor.guardian_ids().values())
    ours = Side(name=_OURS)
    peers = {peer.module: Side(name=peer.name, variant="fp32" if peer.is_fp32 else "int8") for peer in options.peers}
    pythons = _install(options, peers)
    warm_up_keys = _draw(2 * BATCH_SIZE, seed=_WARM_UP_SEED, options=options, storage=storage)[1]
    with Ours(place, model=model, keys=warm_up_keys, servers=servers) as worker:
        for turn in range(options.repeats):
            images, keys = _draw(options.images, seed=_IMAGE_SEED + turn, options=options, storage=storage)
            _take_turn(ours, partial(worker.turn, keys), servers=servers)
            our_masks = worker.masks()
            _score(ours, our_masks, images=images, ours=our_masks)
            ours.variant = worker.variant()
            for peer in options.peers:
                side = peers[peer.module]
                if side.failure is not None:
                    continue
                work = Work(
                    endpoint_url=connections.s3_endpoint_url,
                    region=connections.s3_region,
                    bucket=connections.bucket,
                    keys=tuple(keys),
                    warm_up_keys=tuple(warm_up_keys),
                    mask_prefix=f"bench/{peer.module}/{turn}",
                    model=str(model.int8),
                    weights=str(model.weights),
                    encoder=model.contract.encoder,
                    size_wh=model.contract.input_size_wh,
                    threshold=model.contract.threshold,
                    batch_size=BATCH_SIZE,
                    threads=threads,
                    # As the worker does: without these instructions int8 is exact only when asked to be.
                    session_entries={} if has_vnni() else {"session.x64quantprecision": "1"},
                )
                act = partial(
                    run_peer,
                    peer,
                    work,
                    python=pythons[peer.module],
                    environment={
                        "AWS_ACCESS_KEY_ID": connections.s3_access_key,
                        "AWS_SECRET_ACCESS_KEY": connections.s3_secret_key,
                        "PEER_BROKER_URL": connections.queue_url,
                    },
                    log=scratch / f"{peer.module}.log",
                )
                _take_turn(side, act, servers=servers)
                if side.failure is None:
                    masks = [_read_mask(storage, work.mask_key(key)) for key in keys]
                    _score(side, masks, images=images, ours=our_masks)
    return [ours, *peers.values()]


def _install(options: Options, sides: Mapping[str, Side]) -> dict[str, Path]:
    """Return the interpreters of the peers that can be installed; the others have failed."""
    pythons = {}
    for peer in options.peers:
        try:
            pythons[peer.module] = make_environment(peer, directory=options.environments)
        except PeerFailed as exc:
            sides[peer.module].failure = str(exc)
    return pythons


def _draw(count: int, *, seed: int, options: Options, storage: Storage) -> tuple[list[DrawnImage], list[str]]:
    """Draw and store pictures that no turn had before; return them and their keys."""
    images = draw_images(count, size_wh=options.size_wh, seed=seed)
    return images, store_images([image.jpeg for image in images], storage=storage, prefix=f"bench/images/{seed}")


def _take_turn(side: Side, act: Callable[[], Turn], *, servers: Sequence[int]) -> None:
    if side.failure is not None:
        return
    before = sum(cpu_s(server) for server in servers)
    try:
        side.turns.append(act())
    except PeerFailed as exc:
        side.failure = str(exc)
        return
    side.servers_cpu_s.append(sum(cpu_s(server) for server in servers) - before)


def _read_mask(storage: Storage, key: str) -> UInt8Array:
    mask = Image.open(BytesIO(storage.get(key))).convert("L")
    return np.where(np.asarray(mask) > 0, 255, 0).astype(np.uint8)


def _score(
    side: Side, masks: Sequence[UInt8Array], *, images: Sequence[DrawnImage], ours: Sequence[UInt8Array]
) -> None:
    for mask, image, our_mask in zip(masks, images, ours, strict=True):
        side.counts += count_pixels(mask, image.class_mask)
        side.counts_with_ours += count_pixels(our_mask, mask // 255)


def show(sides: Sequence[Side], *, options: Options, console: Console) -> None:
    """Print the table, what failed, and whether the worker finds what the notebook finds."""
    width, height = options.size_wh
    table = Table(title=f"{options.encoder}, {width}x{height} JPEG, {options.images} images, medians of turns")
    columns = ("side", "variant", "img/s", "worker / side", "CPU ms/img", "servers' ms/img", "IoU", "IoU with ours")
    for column in columns:
        table.add_column(column, justify="left" if column in {"side", "variant"} else "right")
    ours = sides[0]
    for side in sides:
        if side.failure is not None:
            table.add_row(side.name, side.variant, "failed")
            continue
        per_image = 1000 / options.images
        table.add_row(
            side.name,
            side.variant,
            f"{options.images / statistics.median(side.seconds):.1f}",
            f"{median_ratio(side.seconds, ours.seconds):.2f}",
            f"{statistics.median(turn.cpu_s for turn in side.turns) * per_image:.1f}",
            f"{statistics.median(side.servers_cpu_s) * per_image:.1f}",
            f"{side.counts.iou_defect:.4f}",
            f"{side.counts_with_ours.iou_defect:.4f}",
        )
    console.print(table)
    for side in sides:
        if side.failure is not None:
            console.print(f"{side.name} failed: {side.failure}")
    for side in sides[1:]:
        if side.variant == "fp32" and side.turns:
            gap = ours.counts.iou_defect - side.counts.iou_defect
            verdict = "within" if abs(gap) <= IOU_TOLERANCE else "NOT within"
            console.print(f"IoU of the worker minus that of '{side.name}': {gap:+.4f}, {verdict} {IOU_TOLERANCE}.")
    if ours.counts.iou_defect < _LEAST_IOU:
        console.print("The network has learned too little for its IoU to say anything.")


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("--encoder", default="resnet101", help="of DeepLabV3+ at 256 x 256")
    parser.add_argument("--size", type=int, nargs=2, default=(512, 512), metavar=("W", "H"), help="of the images")
    parser.add_argument("--images", type=int, default=enough_images(384), help="images in a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side, of which the median counts")
    add_model_options(parser)
    parser.add_argument(
        "--peers", nargs="*", default=[peer.module for peer in PEERS], choices=[peer.module for peer in PEERS]
    )
    parser.add_argument(
        "--environments", type=Path, default=Path(".benchmark-envs"), help="where peers' packages are installed"
    )
    add_out_option(parser)
    return parser


def main() -> None:
    """Compare, print the table, write the raw figures."""
    arguments = make_parser().parse_args()
    options = Options(
        encoder=arguments.encoder,
        size_wh=tuple(arguments.size),
        images=arguments.images,
        repeats=arguments.repeats,
        training_s=arguments.training_s,
        models=arguments.models,
        environments=arguments.environments,
        peers=[peer for peer in PEERS if peer.module in arguments.peers],
    )
    configure_logs(level="warning", form="console", service="bench")
    console = Console(width=120)
    with scratch_directory() as scratch:
        stack = EmbeddedStack(scratch / "data")
        with stack as connections:
            sides = compare(options, stack=stack, connections=connections, scratch=scratch)
    show(sides, options=options, console=console)
    facts = machine_facts("onnxruntime-gpu")
    console.print(facts)
    write_figures(
        arguments.out,
        machine=facts,
        options={
            "encoder": options.encoder,
            "size_wh": options.size_wh,
            "images": options.images,
            "training_s": options.training_s,
        },
        sides=[asdict(side) for side in sides],
    )


if __name__ == "__main__":
    main()
