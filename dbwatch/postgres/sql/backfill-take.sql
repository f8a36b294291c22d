-- A backfill that goes on under another owner, or goes back: whoever had it is fenced. It belongs to the window in which
-- it goes on, unless its before-images are another's.
UPDATE dbwatch.backfill AS b
SET
    epoch = b.epoch + 1,
    owner = %(owner)s,
    status = %(status)s,
    window_id = CASE WHEN b.images IS NULL THEN coalesce(%(window)s, b.window_id) ELSE b.window_id END,
    step_id = CASE WHEN b.images IS NULL THEN coalesce(%(step)s, b.step_id) ELSE b.step_id END,
    beat_at = clock_timestamp(),
    note = NULL,
    ended_at = NULL
WHERE b.id = %(id)s;
