-- How a backfill ended. Nothing where it is no longer ours.
UPDATE dbwatch.backfill AS b
SET
    status = %(status)s,
    pending = %(pending)s,
    note = %(note)s,
    ended_at = clock_timestamp()
WHERE b.id = %(id)s AND b.epoch = %(epoch)s;
