-- What was begun, is not done, and would do the same by another key, the newest first.
SELECT b.spec
FROM dbwatch.backfill AS b
WHERE
    b.spec_hash <> %(spec_hash)s
    AND b.status NOT IN ('done', 'restored')
    AND (b.batches > 0 OR b.status = 'running')
    AND b.spec::jsonb - 'key' = %(spec)s::jsonb - 'key'
ORDER BY b.id DESC;
