-- Every backfill that the journal knows, the newest first: how far it is, whether its owner's backend is there, how many
-- rows it holds in quarantine, and how many its table has, as the last VACUUM or ANALYZE found it. A journal that an older
-- version made has no orders: the row's JSON tells of what is there.
SELECT
    b.id,
    b.window_id::text AS "window",
    b.step_id AS step,
    b.spec,
    b.status,
    b.owner,
    b.rows_done,
    b.batches,
    b.scanned,
    b.walked,
    b.pending,
    b.note,
    b.started_at,
    b.ended_at,
    extract(EPOCH FROM clock_timestamp() - b.beat_at)::double precision AS silent_s,
    EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_activity(NULL) AS a
        WHERE a.application_name = b.owner
    ) AS backend,
    (
        SELECT count(*) FROM dbwatch.quarantine AS q
        WHERE q.backfill_id = b.id
    ) AS quarantined,
    to_jsonb(b) ->> 'ordered' AS ordered,
    coalesce((to_jsonb(b) ->> 'heeded')::boolean, false) AS heeded,
    (
        SELECT nullif(greatest(c.reltuples, 0), 0)::bigint
        FROM pg_catalog.pg_class AS c
        INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = b.spec::json #>> '{table,0}' AND c.relname = b.spec::json #>> '{table,1}'
    ) AS rows_estimate
FROM dbwatch.backfill AS b
ORDER BY b.id DESC;
