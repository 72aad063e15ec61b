"""Serves the API: `python -m api`. Address and port come from the settings."""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack

import uvicorn

from api import metrics
from api.app import create_app
from defectoscope.crash_points import arm_crash_point
from defectoscope.errors import DefectoscopeError
from defectoscope.logs import configure_logs
from defectoscope.metrics import open_figures, serve_metrics
from defectoscope.settings import load_settings

#: Requests in work get so long to end after the first SIGTERM or SIGINT.
_GRACE_S = 5


def main() -> int:
    """Serve until told to stop.

    Returns:
        0 after an ordinary end, 2 when the settings do not allow a start.
    """
    try:
        settings = load_settings()
        arm_crash_point()
        configure_logs(level=settings.log.level, form=settings.log.format, service="api")
        app = create_app(settings)
        figures = open_figures(settings, families=metrics.FAMILIES, read=metrics.read_figures)
    except DefectoscopeError as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 2
    # What was loaded for the start stays: to look through all of it for garbage holds a request up for 0.1 s.
    gc.collect()
    gc.freeze()
    # When a signal ends the server it ends the process too, and what is not closed then is closed by the system.
    with ExitStack() as until_the_end:
        until_the_end.callback(figures.close)
        exposition = serve_metrics(
            [metrics.REGISTRY, figures], host=settings.metrics.host, port=settings.metrics.api_port
        )
        if exposition is not None:
            until_the_end.callback(exposition.close)
        uvicorn.run(
            app,
            host=settings.api.host,
            port=settings.api.port,
            # Our own handlers and our own line for each request.
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
