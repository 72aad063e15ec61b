"""What can go wrong, as values, and a schedule of it drawn from a seed. Nothing happens here; see `chaos.py`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.faults.proxy import Disturbance, Mode
from tests.faults.servers import BROKER, DATABASE, STORAGE


class Act(StrEnum):
    """What is done to a target."""

    #: SIGKILL.
    KILL = "kill"
    #: SIGSTOP for longer than a lease, then SIGCONT.
    FREEZE = "freeze"
    #: The signal that asks for an orderly end; the supervisor starts it again.
    STOP = "stop"
    #: Everything that the broker knows is forgotten.
    FLUSH = "flush"
    #: Every connection to the database is ended.
    CUT = "cut"
    #: Half of the messages that wait are thrown away.
    DROP = "drop messages"
    #: Every message that waits is there twice.
    DOUBLE = "double messages"
    #: Another model version is put in service.
    SWITCH = "switch model"
    #: The proxy in front of a server does as it is told.
    DISTURB = "disturb"


#: Targets besides the servers; any of the workers and beats is meant.
WORKER, API, BEAT, TRAINER = "worker", "api", "beat", "trainer"


class Part(StrEnum):
    """Parts of a schedule, in their order."""

    #: A worker is killed and nothing else.
    ALONE = "alone"
    #: One kill of anything after the other.
    STORM = "storm"
    #: Servers are frozen, cut off or away.
    OTHERS = "others"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        act: what.
        target: with whom.
        lasts_s: for how long; 0 for what happens at once.
        then_s: pause until the next fault begins, whether this one is over or not.
        disturbance: for `Act.DISTURB`.
        part: of the schedule.
    """

    act: Act
    target: str
    lasts_s: float = 0.0
    then_s: float = 0.0
    disturbance: Disturbance | None = None
    part: Part = Part.STORM

    @property
    def name(self) -> str:
        what = self.act if self.disturbance is None else self.disturbance.mode
        return f"{what} {self.target}"


_PROXIED: dict[str, tuple[Disturbance, ...]] = {
    DATABASE: (
        Disturbance(mode=Mode.LATENCY, latency_s=0.05),
        Disturbance(mode=Mode.RESET),
        Disturbance(mode=Mode.BLACK_HOLE),
        Disturbance(mode=Mode.HALF_OPEN),
        Disturbance(mode=Mode.TRUNCATE, after_bytes=3000),
        Disturbance(mode=Mode.DOWN),
    ),
    BROKER: (
        Disturbance(mode=Mode.LATENCY, latency_s=0.1),
        Disturbance(mode=Mode.RESET),
        Disturbance(mode=Mode.BLACK_HOLE),
        Disturbance(mode=Mode.HALF_OPEN),
        Disturbance(mode=Mode.TRUNCATE, after_bytes=200),
        Disturbance(mode=Mode.DOWN),
    ),
    STORAGE: (
        Disturbance(mode=Mode.LATENCY, latency_s=0.3),
        Disturbance(mode=Mode.RESET),
        Disturbance(mode=Mode.BLACK_HOLE),
        Disturbance(mode=Mode.HALF_OPEN),
        Disturbance(mode=Mode.TRUNCATE, after_bytes=2000),
        Disturbance(mode=Mode.DOWN),
        Disturbance(mode=Mode.ERRORS),
    ),
}
#: What happens at once.
_INSTANT = {Mode.RESET, Mode.HALF_OPEN}

#: Kills of a whole seed and of a short one.
_KILLS = {WORKER: 6, API: 2, BEAT: 2, BROKER: 2, DATABASE: 2, TRAINER: 1, STORAGE: 1}
_FEW_KILLS = {WORKER: 3, API: 1, BEAT: 1, BROKER: 1, DATABASE: 1}
_OTHERS = (
    *((Act.FREEZE, target) for target in (WORKER, BEAT, DATABASE)),
    *((Act.STOP, target) for target in (WORKER, API, BEAT, TRAINER, BROKER, DATABASE)),
    (Act.FLUSH, BROKER),
    (Act.FLUSH, BROKER),
    (Act.CUT, DATABASE),
    (Act.DROP, BROKER),
    (Act.DOUBLE, BROKER),
    (Act.SWITCH, "model"),
    (Act.SWITCH, "model"),
)
_FEW_OTHERS = (
    (Act.FREEZE, WORKER),
    (Act.STOP, WORKER),
    (Act.FLUSH, BROKER),
    (Act.CUT, DATABASE),
    (Act.SWITCH, "model"),
)


def draw_schedule(seed: int, *, lease_s: float) -> list[Fault]:
    """Everything there is, once or more often, in an order and at distances drawn from the seed.

    First a few workers are killed, each alone, which tells how soon the chunks of a killed worker are done. Then follow
    kills of everything, one on the heels of the other, and then everything else.
    """
    rng = random.Random(seed)  # noqa: S311 -- a schedule, not a secret
    proxied = [(target, disturbance) for target, all_of in _PROXIED.items() for disturbance in all_of]
    return _draw(rng, kills=_KILLS, others=_OTHERS, proxied=proxied, lease_s=lease_s, then_s=(1.0, 3.0))


def draw_short_schedule(seed: int, *, lease_s: float) -> list[Fault]:
    """A kill or more of everything that matters, and one disturbance of each server, in about half a minute."""
    rng = random.Random(seed)  # noqa: S311 -- as above
    proxied = [(target, rng.choice(all_of)) for target, all_of in _PROXIED.items()]
    return _draw(rng, kills=_FEW_KILLS, others=_FEW_OTHERS, proxied=proxied, lease_s=lease_s, then_s=(1.0, 2.5))


def count_kills(faults: Sequence[Fault]) -> int:
    return sum(fault.act is Act.KILL for fault in faults)


def _draw(
    rng: random.Random,
    *,
    kills: dict[str, int],
    others: Sequence[tuple[Act, str]],
    proxied: Sequence[tuple[str, Disturbance]],
    lease_s: float,
    then_s: tuple[float, float],
) -> list[Fault]:
    alone = [
        Fault(act=Act.KILL, target=WORKER, then_s=lease_s + rng.uniform(4, 6), part=Part.ALONE)
        for _ in range(kills[WORKER] // 2)
    ]
    kills = {**kills, WORKER: kills[WORKER] - len(alone)}
    faults = []
    for target, count in kills.items():
        faults += [Fault(act=Act.KILL, target=target, then_s=rng.uniform(*then_s)) for _ in range(count)]
    rng.shuffle(faults)
    storm = faults
    # A worker dies among the other faults, too.
    faults = [Fault(act=Act.KILL, target=WORKER, then_s=rng.uniform(*then_s), part=Part.OTHERS)]
    for act, target in others:
        lasts_s = lease_s + rng.uniform(1, 3) if act is Act.FREEZE else 0.0
        faults.append(Fault(act=act, target=target, lasts_s=lasts_s, then_s=rng.uniform(*then_s)))
    for target, disturbance in proxied:
        lasts_s = 0.0 if disturbance.mode in _INSTANT else rng.uniform(1, lease_s + 2)
        faults.append(
            Fault(
                act=Act.DISTURB,
                target=target,
                lasts_s=lasts_s,
                then_s=rng.uniform(*then_s),
                disturbance=disturbance,
            )
        )
    rng.shuffle(faults)
    return alone + storm + faults
