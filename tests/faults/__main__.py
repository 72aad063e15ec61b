"""`make faults`: five seeds, a flushed broker, plain Celery under the same kills. Ends with 1 if a promise broke."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.place import scratch_directory
from tests.faults.faults import Part, draw_schedule
from tests.faults.fleet import LEASE_S
from tests.faults.flush import run_flush
from tests.faults.plain_celery import run_plain, tell_plain
from tests.faults.report import tell_all, tell_seed, write_report
from tests.faults.seed_run import percentile, run_seed
from tests.faults.servers import running_servers

_FLUSHED_IMAGES = 10_000
_GOAL_S = LEASE_S + 15


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5], help="one run for each")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--flushed", type=int, default=_FLUSHED_IMAGES, help="images owed when the broker is flushed")
    parser.add_argument("--plain", type=int, nargs="*", default=[1, 2, 3], help="seeds whose kills plain Celery gets")
    parser.add_argument("--out", type=Path, default=Path("faults.json"), help="file for the raw figures")
    arguments = parser.parse_args()
    outcomes, further = [], {}
    with scratch_directory() as scratch, running_servers(scratch / "servers") as servers:
        for seed in arguments.seeds:
            faults = draw_schedule(seed, lease_s=LEASE_S)
            outcomes.append(run_seed(seed, faults, servers=servers, scratch=scratch, workers=arguments.workers))
            _say(tell_seed(outcomes[-1]))
        if arguments.flushed:
            flushed = run_flush(arguments.flushed, servers=servers, scratch=scratch, workers=arguments.workers)
            further["flush"] = flushed
            _say(
                f"broker flushed with {' and with '.join(map(str, flushed.owed_at_flushes))} images owed: "
                f"{flushed.succeeded} of {flushed.images} done in {flushed.seconds:.0f} s, "
                f"flaws {flushed.flaws or 'none'}, missing masks {flushed.missing_masks}"
            )
        if arguments.plain:
            plain = run_plain(arguments.plain, servers=servers, scratch=scratch)
            further["plain_celery"] = plain
            _say(tell_plain(plain))
    _say(tell_all(outcomes, lease_s=LEASE_S))
    write_report(arguments.out, outcomes, **further)
    alone = [value for outcome in outcomes for value in outcome.recoveries_s[Part.ALONE]]
    is_kept = all(outcome.verdict.is_kept and not outcome.telling.flaws for outcome in outcomes)
    # Where servers die too, a chunk waits for them as well, which no worker can shorten.
    is_kept &= (percentile(alone, 95) or 0) < _GOAL_S
    if arguments.flushed:
        is_kept &= flushed.succeeded == flushed.images and not flushed.flaws and not flushed.missing_masks
    return 0 if is_kept else 1


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
