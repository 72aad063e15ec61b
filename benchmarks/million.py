"""`python -m benchmarks.million`: a database with ten jobs of very many images, and how long the API takes to show it.

The rows are generated in SQL, as completion would have written them, so that what is measured are queries over tables
of the size that counts, and not the inspection of the images. It also claims chunks from all of those jobs.
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections.abc import Callable
from time import perf_counter

import psycopg
import sqlalchemy
from fastapi.testclient import TestClient
from rich.console import Console
from rich.table import Table

from api.app import create_app
from benchmarks.output import add_out_option, write_figures
from benchmarks.place import make_place, scratch_directory
from benchmarks.processes import machine_facts
from defectoscope.access.store import create_token
from defectoscope.connect import open_database
from defectoscope.database import AccessScope, Database
from defectoscope.embedded.stack import EmbeddedStack
from defectoscope.inspection.chunks import claim_next_chunk
from defectoscope.inspection.leases import Release, release_chunk
from defectoscope.logs import configure_logs
from defectoscope.settings import Settings, required

_CHUNK_SIZE = 16
_PAGE = 100

_PREPARE = """
    INSERT INTO model_versions (number, contract) VALUES (1, '{}');
    INSERT INTO images (sha256, key, size_bytes, width, height, format, source_mode)
    SELECT lpad(n::text, 64, '0'), 'objects/' || n, 100000, 512, 512, 'JPEG', 'RGB' FROM generate_series(1, {images}) n;
"""
# A tenth of the results is defective, with three defects each of many sizes; the second half of every job still waits.
_JOB = """
    INSERT INTO jobs (name, state, source, params, model_version_id, request_sha256, enumerated_at)
    VALUES ('job {job}', 'running', '{{"kind": "prefix", "uri": "s3://line-3/{job}", "labels_uri": null}}',
        '{{"threshold": 0.5, "min_area_px": 16, "overlays": "none", "mm_per_px": null, "qa_min_iou": 0.5}}',
        1, 's', now());
    INSERT INTO chunks (job_id, image_count, state, attempts, lease_token)
    SELECT {job}, {chunk_size}, CASE WHEN n <= {done} / {chunk_size} THEN 'done' ELSE 'pending' END,
        (n <= {done} / {chunk_size})::int, (n <= {done} / {chunk_size})::int
    FROM generate_series(1, {images} / {chunk_size}) n;
    INSERT INTO results (image_id, model_version_id, params_sha256, verdict, defect_px, defect_count, threshold,
        min_area_px, mask_key, mask_sha256, variant, provider, runtime_version, latency_ms)
    SELECT n, 1, 'parameters of job {job}', CASE WHEN n % 10 = 0 THEN 'defective' ELSE 'clean' END,
        (n % 10 = 0)::int * 300, (n % 10 = 0)::int * 3, 0.5, 16, 'masks/' || n, repeat('0', 64), 'int8',
        'CPUExecutionProvider', '1.31', 20
    FROM generate_series(1, {done}) n;
    INSERT INTO defects (result_id, number, x_min, y_min, x_max, y_max, area_px, centroid_x, centroid_y, major_axis_px,
        minor_axis_px, orientation_deg, perimeter_px, max_probability, mean_probability, touches_border)
    SELECT id, number, 1, 1, 9, 9, 16 + (id * 7919 + number) % 5000, 5, 5, 8, 8, 0, 30, 0.9, 0.8, false
    FROM results CROSS JOIN generate_series(1, 3) AS number
    WHERE params_sha256 = 'parameters of job {job}' AND verdict = 'defective';
    INSERT INTO job_items (job_id, chunk_id, name, state, source_uri, image_id, result_id, verdict)
    SELECT {job}, ({job} - 1) * ({images} / {chunk_size}) + 1 + (n - 1) / {chunk_size}, 'images/part-' || n || '.jpg',
        CASE WHEN n > {done} THEN 'pending' WHEN n % 1000 = 1 THEN 'failed' ELSE 'succeeded' END,
        's3://line-3/images/part-' || n || '.jpg', CASE WHEN n <= {done} AND n % 1000 <> 1 THEN n END,
        CASE WHEN n % 1000 <> 1 THEN results.id END, CASE WHEN n % 1000 <> 1 THEN results.verdict END
    FROM generate_series(1, {images}) n
    LEFT JOIN results ON results.image_id = n AND results.params_sha256 = 'parameters of job {job}'
    ORDER BY n;
    UPDATE jobs SET (pending_images, succeeded_images, failed_images, defective_images, defects) = (
        SELECT count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'succeeded'),
            count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE verdict = 'defective'),
            3 * count(*) FILTER (WHERE verdict = 'defective')
        FROM job_items WHERE job_id = {job}
    ) WHERE id = {job};
"""


def main() -> None:
    """Fill a database, ask the API for everything it lists, and print the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million")
    parser.add_argument("--images", type=int, default=1_000_000, help="images in each job")
    parser.add_argument("--jobs", type=int, default=10, help="jobs")
    parser.add_argument("--repeats", type=int, default=200, help="requests of each kind")
    add_out_option(parser)
    arguments = parser.parse_args()
    configure_logs(level="warning", form="console", service="bench")
    console = Console()
    with scratch_directory() as scratch, EmbeddedStack(scratch / "data") as connections:
        # The limit of requests is for those who share an API; here one asks as fast as it can.
        unlimited = {"api": {"max_requests_per_s": 0}}
        settings = make_place(connections, scratch=scratch, sections=unlimited).settings
        started = perf_counter()
        rows = _fill(settings, images=arguments.images - arguments.images % _CHUNK_SIZE, jobs=arguments.jobs)
        console.print(f"{rows} in {perf_counter() - started:.0f} s")
        with TestClient(create_app(settings), base_url="http://127.0.0.1:8000", headers=_login(settings)) as client:
            paths = _routes(client, arguments.jobs)
            # As `python -m api` does before it serves.
            gc.collect()
            gc.freeze()
            times = {path: _time_route(client, path, arguments.repeats) for path in paths}
        database = open_database(settings)
        times["claim a chunk"] = _time_claims(database, arguments.repeats)
        database.close()
    console.print(_table(times))
    facts = machine_facts("sqlalchemy", "fastapi")
    console.print(facts)
    write_figures(arguments.out, machine=facts, rows=rows, seconds=times)


def _fill(settings: Settings, *, images: int, jobs: int) -> str:
    """Write the rows, in a statement for each table and job, and say how many there are."""
    url = sqlalchemy.make_url(required(settings.database.url, "database.url").get_secret_value())
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    values = {"images": images, "done": images // 2 // _CHUNK_SIZE * _CHUNK_SIZE, "chunk_size": _CHUNK_SIZE}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_PREPARE.replace("{images}", str(images)).encode())
        for job in range(1, jobs + 1):
            connection.execute(_JOB.format(job=job, **values).encode())
        connection.execute("VACUUM ANALYZE")
        sizes = connection.execute(
            "SELECT relname, reltuples FROM pg_class WHERE relname IN ('job_items', 'results', 'defects', 'chunks')"
        ).fetchall()
    return ", ".join(f"{rows:,.0f} {name}" for name, rows in sizes)


def _login(settings: Settings) -> dict[str, str]:
    """Return the header that lets the benchmark in."""
    database = open_database(settings)
    with database.transaction() as session:
        token = create_token(session, name="benchmark", scope=AccessScope.VIEWER, created_by="benchmark").text
    database.close()
    return {"Authorization": f"Bearer {token}"}


def _routes(client: TestClient, jobs: int) -> list[str]:
    """Name what is asked for: of the last job, first pages and pages from the middle."""
    items = f"/v1/jobs/{jobs}/items?limit={_PAGE}"
    results = f"/v1/results?job={jobs}&limit={_PAGE}"
    defects = f"/v1/defects?job={jobs}&limit={_PAGE}"
    middle = {
        path: client.get(path.replace(f"limit={_PAGE}", "limit=1000")).json()["next_cursor"]
        for path in (items, results, defects, f"{defects}&order=area")
    }
    return [
        "/v1/jobs",
        f"/v1/jobs/{jobs}",
        *[path + deeper for path, cursor in middle.items() for deeper in ("", f"&cursor={cursor}")],
        f"{items}&state=failed",
        f"{items}&state=pending",
        f"{results}&verdict=defective",
        f"/v1/results?verdict=defective&limit={_PAGE}",
        f"/v1/defects?order=area&limit={_PAGE}",
        f"/v1/defects?model_version=1&limit={_PAGE}",
        f"/v1/images?limit={_PAGE}",
    ]


def _time_route(client: TestClient, path: str, repeats: int) -> list[float]:
    def ask() -> None:
        client.get(path).raise_for_status()

    ask()  # The first request of a kind writes the statement.
    return _time(ask, repeats)


def _time_claims(database: Database, repeats: int) -> list[float]:
    """Time claims, and give each chunk back, so that all of them find the same."""
    seconds = []
    for _ in range(repeats):
        started = perf_counter()
        chunk = claim_next_chunk(database=database, owner="bench", lease_s=60, max_attempts=3)
        seconds.append(perf_counter() - started)
        if chunk is not None:
            release_chunk(database=database, chunk=chunk, why=Release.STOPPED)
    return seconds


def _time(act: Callable[[], None], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        started = perf_counter()
        act()
        seconds.append(perf_counter() - started)
    return seconds


def _table(times: dict[str, list[float]]) -> Table:
    table = Table("asked for", "p50 ms", "p99 ms", "longest ms")
    for name, seconds in times.items():
        p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[98]
        table.add_row(name, *(f"{1000 * value:.1f}" for value in (p50, p99, max(seconds))))
    return table


if __name__ == "__main__":
    main()
