"""The statements of completion, one for each table, with an array for each column.

What a chunk costs the worker's processor then hardly depends on how many images and defects it has.
"""

from __future__ import annotations

from sqlalchemy import text

CLOSE_CHUNK = text("""
    UPDATE chunks SET state = 'done', lease_owner = NULL, lease_expires_at = NULL, finished_at = now()
    WHERE id = :chunk_id AND lease_token = :token AND state = 'running' RETURNING id
""")
ADD_RESULTS = text("""
    INSERT INTO results (image_id, model_version_id, params_sha256, verdict, defect_px, defect_count, threshold,
        min_area_px, mm_per_px, mask_key, mask_sha256, overlay_key, variant, provider, runtime_version, latency_ms,
        resize_policy, tile_count, model_scale)
    SELECT image_id, :model_version_id, :params_sha256, verdict, defect_px, defect_count, :threshold,
        :min_area_px, :mm_per_px, mask_key, mask_sha256, overlay_key, variant, provider, runtime_version, latency_ms,
        resize_policy, tile_count, model_scale
    FROM unnest(
        CAST(:image_id AS bigint[]), CAST(:verdict AS text[]), CAST(:defect_px AS bigint[]),
        CAST(:defect_count AS bigint[]), CAST(:mask_key AS text[]), CAST(:mask_sha256 AS text[]),
        CAST(:overlay_key AS text[]), CAST(:variant AS text[]), CAST(:provider AS text[]),
        CAST(:runtime_version AS text[]), CAST(:latency_ms AS double precision[]), CAST(:resize_policy AS text[]),
        CAST(:tile_count AS integer[]), CAST(:model_scale AS double precision[])
    ) AS rows (image_id, verdict, defect_px, defect_count, mask_key, mask_sha256, overlay_key, variant, provider,
        runtime_version, latency_ms, resize_policy, tile_count, model_scale)
    ON CONFLICT DO NOTHING RETURNING id, image_id
""")
ADD_DEFECTS = text("""
    INSERT INTO defects (result_id, number, x_min, y_min, x_max, y_max, area_px, area_mm2, centroid_x, centroid_y,
        major_axis_px, minor_axis_px, orientation_deg, perimeter_px, max_probability, mean_probability, touches_border)
    SELECT * FROM unnest(
        CAST(:result_id AS bigint[]), CAST(:number AS bigint[]), CAST(:x_min AS bigint[]), CAST(:y_min AS bigint[]),
        CAST(:x_max AS bigint[]), CAST(:y_max AS bigint[]), CAST(:area_px AS bigint[]),
        CAST(:area_mm2 AS double precision[]), CAST(:centroid_x AS double precision[]),
        CAST(:centroid_y AS double precision[]), CAST(:major_axis_px AS double precision[]),
        CAST(:minor_axis_px AS double precision[]), CAST(:orientation_deg AS double precision[]),
        CAST(:perimeter_px AS double precision[]), CAST(:max_probability AS double precision[]),
        CAST(:mean_probability AS double precision[]), CAST(:touches_border AS boolean[])
    )
""")
# A statement of its own: what another chunk wrote meanwhile can be seen only now.
FIND_RESULTS = text("""
    SELECT image_id, id, verdict, deleted_at IS NOT NULL FROM results WHERE image_id = ANY(CAST(:image_ids AS bigint[]))
        AND model_version_id = :model_version_id AND params_sha256 = :params_sha256
""")
RESTORE_RESULTS = text("""
    UPDATE results SET deleted_at = NULL, mask_key = again.mask_key, overlay_key = again.overlay_key
    FROM unnest(CAST(:result_id AS bigint[]), CAST(:mask_key AS text[]), CAST(:overlay_key AS text[]))
        AS again (id, mask_key, overlay_key)
    WHERE results.id = again.id
""")
ADD_SCORES = text("""
    INSERT INTO qa_scores (result_id, label_id, tp, fp, fn, tn)
    SELECT * FROM unnest(
        CAST(:result_id AS bigint[]), CAST(:label_id AS bigint[]), CAST(:tp AS bigint[]), CAST(:fp AS bigint[]),
        CAST(:fn AS bigint[]), CAST(:tn AS bigint[])
    ) ON CONFLICT DO NOTHING
""")
# What the enumeration, or an attempt before, found wrong with a label stays.
END_ITEMS = text("""
    UPDATE job_items SET state = ended.state, image_id = ended.image_id, result_id = ended.result_id,
        label_id = ended.label_id, verdict = ended.verdict, error_code = ended.error_code,
        error_message = ended.error_message,
        label_error_code = coalesce(ended.label_error_code, job_items.label_error_code),
        label_error_message = coalesce(ended.label_error_message, job_items.label_error_message)
    FROM unnest(
        CAST(:id AS bigint[]), CAST(:state AS text[]), CAST(:image_id AS bigint[]), CAST(:result_id AS bigint[]),
        CAST(:label_id AS bigint[]), CAST(:verdict AS text[]), CAST(:error_code AS text[]),
        CAST(:error_message AS text[]), CAST(:label_error_code AS text[]), CAST(:label_error_message AS text[])
    ) AS ended (id, state, image_id, result_id, label_id, verdict, error_code, error_message, label_error_code,
        label_error_message)
    WHERE job_items.id = ended.id
""")
COUNT_SOUND_LABELS = text("""
    SELECT count(*) FROM job_items WHERE id = ANY(CAST(:item_ids AS bigint[])) AND label_error_code IS NULL
""")
LOCK_JOB = text("SELECT id FROM jobs WHERE id = :job_id FOR NO KEY UPDATE")
