-- dbwatch backfill: which replication slots are there, and who keeps dead rows of this database from being removed?
-- Reads shared memory only. Slots and standbys do not tell since when they hold an xmin: the caller counts.
WITH here AS (
    SELECT a.datid AS oid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a
),
sessions AS (
    SELECT a.*
    FROM pg_catalog.pg_stat_get_activity(NULL) AS a
    WHERE
        a.pid <> pg_catalog.pg_backend_pid() AND NOT a.pid = ANY(%(workers)s::int[])
        AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
        AND a.backend_type <> 'autovacuum worker'
)
SELECT
    'slot' AS kind, s.slot_name::text AS name, s.wal_status AS status, NULL::float8 AS seconds,
    s.safe_wal_size::bigint AS safe,
    nullif(pg_catalog.pg_size_bytes(current_setting('max_slot_wal_keep_size')), -1) AS kept,
    NULL::text AS xmin
FROM pg_catalog.pg_get_replication_slots() AS s
WHERE s.wal_status IS NOT NULL
UNION ALL
SELECT 'held by slot', s.slot_name::text, NULL, NULL, NULL, NULL, s.xmin::text
FROM pg_catalog.pg_get_replication_slots() AS s
WHERE s.xmin IS NOT NULL
UNION ALL
(
    SELECT
        'held by session', a.pid || ' (' || coalesce(nullif(a.application_name, ''), 'unnamed') || ')', NULL,
        extract(EPOCH FROM clock_timestamp() - a.xact_start)::float8, NULL, NULL, ''
    FROM sessions AS a
    WHERE a.xact_start IS NOT NULL AND a.datid = (SELECT here.oid FROM here)
    ORDER BY a.xact_start
    LIMIT 1
)
UNION ALL
(
    SELECT
        'held by standby', coalesce(nullif(a.application_name, ''), 'unnamed'), NULL, NULL, NULL, NULL,
        a.backend_xmin::text
    FROM sessions AS a
    WHERE a.backend_type = 'walsender' AND a.xact_start IS NULL AND a.backend_xmin IS NOT NULL
    LIMIT 20
)
UNION ALL
(
    SELECT
        'held by prepared transaction', p.gid, NULL, extract(EPOCH FROM clock_timestamp() - p.prepared)::float8,
        NULL, NULL, ''
    FROM pg_catalog.pg_prepared_xact() AS p
    WHERE p.dbid = (SELECT here.oid FROM here)
    ORDER BY p.prepared
    LIMIT 1
);
