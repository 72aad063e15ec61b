"""Runs a whole campaign, or one input of it: ``python -m tests.fuzz --inputs 100000 --seed 1``."""

# ruff: noqa: T201 -- a command prints

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from defectoscope.database.migrate import upgrade
from defectoscope.embedded.stack import EmbeddedStack
from tests.fuzz.campaign import run_kind
from tests.fuzz.kinds import KINDS


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these; their shares stay as they are")
    parser.add_argument("--only", type=int, help="one input, by its index")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    asked = parser.parse_args()
    kinds = asked.kind or list(KINDS)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="defectoscope-fuzz-", ignore_cleanup_errors=True) as directory:
        if "requests" in kinds:
            with EmbeddedStack(Path(directory)) as connections:
                reports = _run(kinds, asked, settings=settings_of(connections))
        else:
            reports = _run(kinds, asked, settings=None)
    total, broken = sum(report.count for report in reports), [each for report in reports for each in report.broken]
    print(f"{total} inputs, seed {asked.seed}, {time.monotonic() - began_s:.0f} s: {len(broken)} broke a promise")
    if asked.json:
        asked.json.write_text(json.dumps([_figures(report) for report in reports], indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if broken else 0)


def settings_of(connections):
    """Settings of an API on servers of our own, with every table."""
    upgrade(connections.database_url)
    return {
        "database": {"url": connections.database_url},
        "queue": {"url": connections.queue_url},
        "storage": {
            "endpoint_url": connections.s3_endpoint_url,
            "region": connections.s3_region,
            "access_key": connections.s3_access_key,
            "secret_key": connections.s3_secret_key,
            "bucket": connections.bucket,
        },
        "inspection": {"max_image_bytes": 2**20, "max_image_pixels": 30_000_000},
        "api": {
            "max_upload_bytes": 2**21,
            "max_model_bytes": 4096,
            "max_requests_per_s": 0,
            "max_refused_tokens_per_min": 10**6,
        },
    }


def _run(kinds, asked, *, settings):
    reports = []
    for kind in kinds:
        count, first = (1, asked.only) if asked.only is not None else (round(asked.inputs * KINDS[kind].share), 0)
        report = run_kind(kind, count=count, seed=asked.seed, settings=settings, first=first)
        reports.append(report)
        _show(report)
    return reports


def _show(report):
    print(f"{report.kind}: {report.count} inputs", flush=True)
    if report.times_ms:
        print(
            f"  p50 {report.quantile_ms(0.5):.1f} ms, p99 {report.quantile_ms(0.99):.1f} ms, "
            f"slowest {max(report.times_ms):.0f} ms, peak memory {report.peak_bytes / 2**20:.0f} MiB"
        )
    for outcome, count in report.outcomes.most_common():
        print(f"  {count:7} {outcome}")
    for each in report.broken:
        print(f"  BROKEN  --kind {each.kind} --only {each.index}: {each.how}", flush=True)


def _figures(report):
    return {
        "kind": report.kind,
        "inputs": report.count,
        "outcomes": dict(report.outcomes.most_common()),
        "broken": [{"index": each.index, "how": each.how} for each in report.broken],
        "p50_ms": report.quantile_ms(0.5),
        "p99_ms": report.quantile_ms(0.99),
        "slowest_ms": max(report.times_ms),
        "peak_bytes": report.peak_bytes,
    }


if __name__ == "__main__":
    main()
