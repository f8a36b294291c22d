-- How many rows a backfill that is done leaves, once those in quarantine were tried again: all that was pending is there.
UPDATE dbwatch.backfill AS b
SET
    note = %(note)s,
    pending = least(b.pending, %(left)s)
WHERE b.id = %(id)s AND b.epoch = %(epoch)s AND b.status = 'done';
