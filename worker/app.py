"""Entry point: ``celery -A worker.app worker -Q control,inspection``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any

from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown, worker_shutting_down

from defectoscope.crash_points import arm_crash_point
from defectoscope.errors import DefectoscopeError
from defectoscope.logs import configure_logs
from defectoscope.metrics import GpuMemory, serve_metrics
from defectoscope.queue import make_celery
from defectoscope.settings import load_settings, required
from worker import metrics
from worker.device import check_device
from worker.inspector import Inspector
from worker.tasks import register_tasks

try:
    settings = load_settings()
    arm_crash_point()
    app = make_celery(
        "worker",
        broker_url=required(settings.queue.url, "queue.url").get_secret_value(),
        key_prefix=settings.queue.key_prefix,
    )
    # Threads, not processes: they share one loaded model, and a forked CUDA context is no context.
    app.conf.update(worker_pool="threads", worker_concurrency=settings.worker.concurrency)
    inspector = Inspector(settings)
except DefectoscopeError as exc:
    sys.exit(f"error: {exc.message} ({exc.code})")
register_tasks(app, inspector)
_until_shutdown = ExitStack()


@setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
def _configure_logs(**_: object) -> None:
    configure_logs(level=settings.log.level, form=settings.log.format, service="worker")


@worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _check_device(**_: object) -> None:
    """Refuse to start on a machine that cannot do what is demanded, rather than be slow without a word."""
    try:
        check_device(settings.worker.device)
    except DefectoscopeError as exc:
        sys.exit(f"error: {exc.message} ({exc.code})")


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _watch_champion(**_: object) -> None:
    inspector.watch_champion()


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _serve_metrics(**_: object) -> None:
    exposition = serve_metrics(
        [metrics.REGISTRY, GpuMemory()], host=settings.metrics.host, port=settings.metrics.worker_port
    )
    if exposition is not None:
        _until_shutdown.callback(exposition.close)


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _hear_signals_first(**_: object) -> None:
    """Stop the work before Celery waits for it: to SIGQUIT it waits for the threads first and tells of it afterwards.

    SIGTERM and Ctrl-C are the warm shutdown: work is given back between two batches, and what does not come to an end
    within the grace time is left. SIGQUIT is the cold one, without the grace time.
    """
    for number, at_once in ((signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGQUIT, True)):
        signal.signal(number, _stopping_first(signal.getsignal(number), at_once=at_once))


def _stopping_first(celerys: Any, *, at_once: bool) -> Callable[[int, FrameType | None], None]:
    def handle(number: int, frame: FrameType | None) -> None:
        inspector.stop_process(at_once=at_once)
        celerys(number, frame)

    return handle


@worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
def _request_stop(**_: object) -> None:
    # Before the worker is ready, and when it is told to end by its remote control.
    inspector.request_stop()


@worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _close(**_: object) -> None:
    _until_shutdown.close()
    inspector.close()
