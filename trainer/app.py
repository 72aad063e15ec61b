"""Entry point: ``celery -A trainer.app worker -Q training -P threads -c 2`` and ``celery -A trainer.app beat``.

It holds no torch: training happens in a process of its own (`python -m trainer run`), which the task starts.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from celery import Celery
from celery.signals import setup_logging, worker_ready, worker_shutdown

from defectoscope.errors import DefectoscopeError
from defectoscope.logs import configure_logs
from defectoscope.metrics import GpuMemory, open_figures, serve_metrics
from defectoscope.queue import make_celery
from defectoscope.settings import Settings, load_settings, required
from trainer import metrics
from trainer.schedule import schedule
from trainer.tasks import register_tasks


def make_trainer(settings: Settings) -> Celery:
    """Return the application with its task and its schedule; nothing connects yet.

    Raises:
        SettingMissing: the broker's address is not set, or the crontab is not one.
    """
    trainer = make_celery(
        "trainer",
        broker_url=required(settings.queue.url, "queue.url").get_secret_value(),
        key_prefix=settings.queue.key_prefix,
    )
    register_tasks(trainer)
    trainer.conf.beat_schedule = schedule(
        reconcile_interval_s=settings.inspection.reconcile_interval_s,
        night=settings.night,
        collect_objects=settings.storage.collect_interval_s > 0,
    )
    # The zone that the crontab of the night is read in.
    trainer.conf.timezone = settings.night.timezone
    # In memory. The default scheduler pickles what it sent last into a file, and what is owed stands in the database.
    trainer.conf.beat_scheduler = "celery.beat:Scheduler"
    # `inspect ping -d celerybeat@HOST` is then answered for as long as beat's loop turns, and no longer.
    trainer.conf.beat_enable_remote_control = True
    return trainer


try:
    _settings = load_settings()
    app = make_trainer(_settings)
except DefectoscopeError as exc:
    sys.exit(f"error: {exc.message} ({exc.code})")


_until_shutdown = ExitStack()


@setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
def _configure_logs(**_: object) -> None:
    configure_logs(level=_settings.log.level, form=_settings.log.format, service="trainer")


# Beat is no worker and never says this.
@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _serve_metrics(**_: object) -> None:
    # Imported only now: what the database knows of models brings numpy with it, which beat has no use for.
    from trainer.figures import FAMILIES, read_figures  # noqa: PLC0415

    figures = open_figures(_settings, families=FAMILIES, read=read_figures)
    _until_shutdown.callback(figures.close)
    exposition = serve_metrics(
        [metrics.REGISTRY, figures, GpuMemory()], host=_settings.metrics.host, port=_settings.metrics.trainer_port
    )
    if exposition is not None:
        _until_shutdown.callback(exposition.close)


@worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _close(**_: object) -> None:
    _until_shutdown.close()
