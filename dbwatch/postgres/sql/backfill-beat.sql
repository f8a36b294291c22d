-- Its worker is there, while no batch says so. Nothing where it is no longer ours.
UPDATE dbwatch.backfill AS b
SET beat_at = clock_timestamp()
WHERE b.id = %(id)s AND b.epoch = %(epoch)s;
