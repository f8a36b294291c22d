-- The end of the table was reached. Nothing where it is no longer ours.
UPDATE dbwatch.backfill AS b
SET
    walked = true,
    beat_at = clock_timestamp()
WHERE b.id = %(id)s AND b.epoch = %(epoch)s;
