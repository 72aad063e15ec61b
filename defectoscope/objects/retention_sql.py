"""The statements of retention. What is marked as deleted points at nothing any more, and the collector takes it.

Both spare whatever a hold, a label, a dataset or a recent or unfinished job refers to.
"""

from __future__ import annotations

from sqlalchemy import text

_RECENTLY = (
    "jobs.created_at > now() - make_interval(days => CAST(:days AS integer)) OR jobs.state IN ('pending', 'running')"
)

_OLD_RESULTS = f"""
    SELECT results.id FROM results
    WHERE results.deleted_at IS NULL
        AND results.created_at < now() - make_interval(days => CAST(:days AS integer))
        AND (NOT :keep_defective OR results.verdict = 'clean')
        AND (CAST(:job_id AS bigint) IS NULL OR EXISTS (
            SELECT FROM job_items WHERE job_items.result_id = results.id AND job_items.job_id = :job_id
        ) AND NOT EXISTS (
            SELECT FROM job_items WHERE job_items.result_id = results.id AND job_items.job_id <> :job_id
        ))
        AND NOT EXISTS (SELECT FROM job_items JOIN jobs ON jobs.id = job_items.job_id
            WHERE job_items.result_id = results.id AND ({_RECENTLY}))
        AND NOT EXISTS (SELECT FROM holds WHERE holds.image_id = results.image_id)
        AND NOT EXISTS (SELECT FROM holds JOIN job_items ON job_items.job_id = holds.job_id
            WHERE job_items.result_id = results.id)
        AND NOT EXISTS (SELECT FROM labels WHERE labels.parent_result_id = results.id)
"""  # noqa: S608 -- made of constants
_OLD_IMAGES = f"""
    SELECT images.id FROM images
    WHERE images.deleted_at IS NULL
        AND images.created_at < now() - make_interval(days => CAST(:days AS integer))
        AND (NOT :keep_defective OR EXISTS (
            SELECT FROM results WHERE results.image_id = images.id
        ) AND NOT EXISTS (
            SELECT FROM results WHERE results.image_id = images.id AND results.verdict = 'defective'
        ))
        AND (CAST(:job_id AS bigint) IS NULL OR EXISTS (
            SELECT FROM job_items WHERE job_items.image_id = images.id AND job_items.job_id = :job_id
        ) AND NOT EXISTS (
            SELECT FROM job_items WHERE job_items.image_id = images.id AND job_items.job_id <> :job_id
        ))
        AND NOT EXISTS (SELECT FROM job_items JOIN jobs ON jobs.id = job_items.job_id
            WHERE job_items.image_id = images.id AND ({_RECENTLY}))
        AND NOT EXISTS (SELECT FROM holds WHERE holds.image_id = images.id)
        AND NOT EXISTS (SELECT FROM holds JOIN job_items ON job_items.job_id = holds.job_id
            WHERE job_items.image_id = images.id)
        AND NOT EXISTS (SELECT FROM labels WHERE labels.image_id = images.id)
        AND NOT EXISTS (SELECT FROM dataset_items WHERE dataset_items.image_id = images.id)
        AND NOT EXISTS (SELECT FROM evaluation_images WHERE evaluation_images.image_id = images.id)
"""  # noqa: S608 -- made of constants

COUNT_RESULTS = text(f"SELECT count(*) FROM ({_OLD_RESULTS}) AS old")  # noqa: S608
COUNT_IMAGES = text(f"SELECT count(*) FROM ({_OLD_IMAGES}) AS old")  # noqa: S608
# In the order of ids, so that what is spared is looked at once and not again for every batch.
GIVE_UP_RESULTS = text(f"""
    UPDATE results SET deleted_at = now()
    WHERE id IN ({_OLD_RESULTS} AND results.id > :after ORDER BY results.id LIMIT :limit) RETURNING id
""")  # noqa: S608 -- made of constants
GIVE_UP_IMAGES = text(f"""
    UPDATE images SET deleted_at = now()
    WHERE id IN ({_OLD_IMAGES} AND images.id > :after ORDER BY images.id LIMIT :limit) RETURNING id
""")  # noqa: S608 -- made of constants
