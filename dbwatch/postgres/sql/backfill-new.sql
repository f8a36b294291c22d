-- A backfill that begins.
INSERT INTO dbwatch.backfill (window_id, step_id, spec, spec_hash, status, owner, epoch, ceiling, walked)
VALUES (%(window)s, %(step)s, %(spec)s, %(spec_hash)s, 'running', %(owner)s, 1, %(ceiling)s, %(walked)s)
RETURNING id;
