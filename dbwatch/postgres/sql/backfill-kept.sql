-- The before-images that the journal knows of, of one window, of one backfill, of one spec outside all windows, or of
-- all windows that are done, the newest first: what is kept, how far it was brought back, how long the batches took
-- that wrote it, and what the table to be restored fires.
SELECT
    b.id,
    b.step_id AS step,
    b.status,
    b.images,
    b.rows_done,
    b.restored,
    b.changed,
    b.missing,
    b.busy_s,
    i.oid IS NOT NULL AS there,
    coalesce(
        (
            SELECT array_agg(t.tgname::text ORDER BY t.tgname)
            FROM pg_catalog.pg_trigger AS t
            INNER JOIN pg_catalog.pg_class AS c ON c.oid = t.tgrelid
            INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
            WHERE
                n.nspname = b.images::json ->> 'schema' AND c.relname = b.images::json ->> 'table'
                AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 16 > 0
        ),
        '{}'
    ) AS fires
FROM dbwatch.backfill AS b
LEFT JOIN pg_catalog.pg_class AS i
    ON i.relname = b.images::json ->> 'relation'
    AND i.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'dbwatch')
WHERE
    b.images IS NOT NULL
    AND (
        b.window_id = %(window)s::uuid
        OR b.id = %(id)s::bigint
        OR b.spec_hash = %(spec)s::text AND b.window_id IS NULL
        OR %(done)s::boolean AND EXISTS (
            SELECT FROM dbwatch."window" AS w
            WHERE w.id = b.window_id AND w.outcome = 'done'
        )
    )
ORDER BY b.id DESC;
