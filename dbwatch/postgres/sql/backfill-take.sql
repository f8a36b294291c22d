-- A backfill that goes on under another owner, or goes back: whoever had it is fenced.
UPDATE dbwatch.backfill AS b
SET
    epoch = b.epoch + 1,
    owner = %(owner)s,
    status = %(status)s,
    beat_at = clock_timestamp(),
    note = NULL,
    ended_at = NULL
WHERE b.id = %(id)s;
