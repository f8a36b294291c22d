-- What set rows of the same table in the same mode already, under another text or key, the newest first. What is done
-- counts in the window that it was done in, or outside of any.
SELECT
    b.spec,
    b.ceiling,
    b.status = 'done' AS done
FROM dbwatch.backfill AS b
WHERE
    b.spec_hash <> %(spec_hash)s
    AND b.status <> 'restored'
    AND (b.batches > 0 OR b.status = 'running')
    AND (b.status <> 'done' OR b.window_id IS NOT DISTINCT FROM %(window)s::uuid)
    AND b.spec::jsonb -> 'table' = %(spec)s::jsonb -> 'table'
    AND b.spec::jsonb -> 'mode' = %(spec)s::jsonb -> 'mode'
ORDER BY b.id DESC;
