"""The trainer's Celery application: an entry point for `celery -A trainer.app worker` and `celery -A trainer.app beat`.

It holds no torch: training happens in a process of its own (`python -m trainer run`), started by the task.
"""

from __future__ import annotations

from celery import Celery

from defectoscope.queue import make_celery
from defectoscope.settings import Settings, load_settings, required
from trainer.schedule import schedule
from trainer.tasks import register_tasks


def make_trainer(settings: Settings) -> Celery:
    """Return the application with its task and its schedule; nothing connects yet.

    Raises:
        SettingMissing: the broker's address is not set.
    """
    app = make_celery(
        "trainer",
        broker_url=required(settings.queue.url, "queue.url").get_secret_value(),
        key_prefix=settings.queue.key_prefix,
    )
    register_tasks(app)
    app.conf.beat_schedule = schedule(reconcile_interval_s=settings.inspection.reconcile_interval_s)
    # Beat keeps when it last sent what. Losing the file costs one early message, so it lies with the scratch files
    # and not in whichever directory beat was started from.
    settings.trainer.work_dir.mkdir(parents=True, exist_ok=True)
    app.conf.beat_schedule_filename = str(settings.trainer.work_dir / "beat-schedule")
    return app


def __getattr__(name: str) -> Celery:
    """Build `app` when Celery asks for it, so that importing this module reads no setting."""
    if name == "app":
        app = make_trainer(load_settings())
        globals()["app"] = app
        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
