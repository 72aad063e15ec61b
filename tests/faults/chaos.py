"""Does to a fleet and its servers what a schedule says, and writes down whom it hit and what they held."""

from __future__ import annotations

import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock, Thread

import redis
import sqlalchemy

from defectoscope.errors.installation import DatabaseUnavailable
from defectoscope.queue.messages import CONTROL_QUEUE, INSPECTION_QUEUE
from tests.faults.faults import API, BEAT, TRAINER, WORKER, Act, Fault, Part
from tests.faults.fleet import Fleet, Held
from tests.faults.servers import BROKER, DATABASE, STORAGE, Servers

_ORDERLY = {DATABASE: signal.SIGINT}
_SERVERS = {DATABASE, BROKER, STORAGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A fault that happened: when, seconds since the beginning, and what a killed worker held."""

    name: str
    at_s: float
    is_kill: bool
    part: Part
    held: Held | None = None


@dataclass(slots=True)
class Chaos:
    """Runs a schedule. Faults that last overlap with those that follow, but no target is hit twice at once.

    Attributes:
        servers: what lies under the fleet.
        fleet: the processes.
        switch_model: puts the other model version in service.
        seed: decides which worker or beat is meant.
    """

    servers: Servers
    fleet: Fleet
    switch_model: Callable[[], None]
    seed: int
    hits: list[Hit] = field(default_factory=list)
    _locks: defaultdict[str, Lock] = field(default_factory=lambda: defaultdict(Lock))
    _failures: list[BaseException] = field(default_factory=list)

    def run(self, faults: Sequence[Fault]) -> None:
        """Do everything, then put everything right: nothing is disturbed, nobody is frozen."""
        rng = random.Random(self.seed)  # noqa: S311 -- a choice, not a secret
        began_at = time.monotonic()
        threads = []
        for fault in faults:
            target = self._choose(fault.target, rng)
            thread = Thread(target=self._do, args=(fault, target, began_at), name=fault.name)
            thread.start()
            threads.append(thread)
            if not fault.lasts_s:
                # A kill waits for somebody who is worth it.
                thread.join()
            time.sleep(fault.then_s)
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _choose(self, target: str, rng: random.Random) -> str:
        if target == BEAT:
            return rng.choice(self.fleet.beats)
        if target == WORKER:
            return rng.choice(self.fleet.workers)
        return target

    def _do(self, fault: Fault, target: str, began_at: float) -> None:
        try:
            with ExitStack() as stack:
                stack.enter_context(self._locks[target])
                if target in {API, TRAINER} or target in self.fleet.workers or target in self.fleet.beats:
                    held = self._hit_process(fault, target)
                else:
                    held = None
                    self._hit_server(fault, target)
                self.hits.append(
                    Hit(
                        name=f"{fault.name} ({target})" if target != fault.target else fault.name,
                        at_s=round(time.monotonic() - began_at, 1),
                        is_kill=fault.act is Act.KILL,
                        part=fault.part,
                        held=held,
                    )
                )
                time.sleep(fault.lasts_s)
                self._put_right(fault, target)
        except (AssertionError, OSError, redis.RedisError, sqlalchemy.exc.SQLAlchemyError) as exc:
            self._failures.append(exc)

    def _hit_process(self, fault: Fault, target: str) -> Held | None:
        held = None
        if fault.act is Act.KILL and target in self.fleet.workers:
            _, held = self.fleet.busy_worker([target])
        number = {Act.KILL: signal.SIGKILL, Act.FREEZE: signal.SIGSTOP, Act.STOP: signal.SIGTERM}[fault.act]
        self.fleet.signal(target, number)
        return held

    def _hit_server(self, fault: Fault, target: str) -> None:
        match fault.act:
            case Act.KILL | Act.FREEZE | Act.STOP:
                number = {Act.KILL: signal.SIGKILL, Act.FREEZE: signal.SIGSTOP}.get(
                    fault.act, _ORDERLY.get(target, signal.SIGTERM)
                )
                self.servers.signal(target, number)
            case Act.DISTURB:
                assert fault.disturbance is not None
                self.servers.proxies[target].disturb(fault.disturbance)
            case Act.FLUSH:
                self.servers.wait_until_back()
                self.servers.flush_broker()
            case Act.CUT:
                self.servers.wait_until_back()
                self.servers.cut_database(self._database_name)
            case Act.DROP | Act.DOUBLE:
                self.servers.wait_until_back()
                self._rewrite_queues(double=fault.act is Act.DOUBLE)
            case Act.SWITCH:
                self.servers.wait_until_back()
                self._switch()

    def _put_right(self, fault: Fault, target: str) -> None:
        if fault.act is Act.FREEZE:
            if target in _SERVERS:
                self.servers.signal(target, signal.SIGCONT)
            else:
                self.fleet.signal(target, signal.SIGCONT)
        if fault.act is Act.DISTURB:
            self.servers.proxies[target].clear()

    def _switch(self) -> None:
        for _ in range(20):
            try:
                self.switch_model()
            except DatabaseUnavailable:
                # Killed by another fault at this moment.
                time.sleep(0.5)
            else:
                return

    def _rewrite_queues(self, *, double: bool) -> None:
        prefix = self.fleet.place.settings.queue.key_prefix
        with redis.Redis.from_url(self.servers.connections.queue_url) as client:
            for queue in (INSPECTION_QUEUE, CONTROL_QUEUE):
                waiting = client.lrange(f"{prefix}{queue}", 0, -1)
                if double and waiting:
                    client.rpush(f"{prefix}{queue}", *waiting)
                elif waiting:
                    client.ltrim(f"{prefix}{queue}", (len(waiting) + 1) // 2, -1)

    @property
    def _database_name(self) -> str:
        url = self.fleet.place.settings.database.url
        assert url is not None
        return str(sqlalchemy.make_url(url.get_secret_value()).database)
