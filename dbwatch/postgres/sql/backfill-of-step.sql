-- The backfill that a step ran last; null where there is none.
SELECT max(b.id)
FROM dbwatch.backfill AS b
WHERE b.window_id = %(window)s AND b.step_id = %(step)s;
