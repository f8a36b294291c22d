-- The rows of the backfill of one id, or of all that do one thing, the newest first; the other of the two is null.
SELECT
    b.id,
    b.window_id,
    b.step_id,
    b.spec,
    b.status,
    b.owner,
    b.epoch,
    b.cursor,
    b.ceiling,
    b.rows_done,
    b.batches,
    b.scanned,
    b.walked,
    b.pending,
    b.note,
    b.started_at,
    b.ended_at,
    b.images,
    b.back,
    b.restored,
    b.changed,
    b.missing,
    extract(EPOCH FROM clock_timestamp() - b.beat_at)::double precision AS silent_s
FROM dbwatch.backfill AS b
WHERE b.id = %(id)s::bigint OR b.spec_hash = %(spec_hash)s::text
ORDER BY b.id DESC;
