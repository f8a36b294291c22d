-- dbwatch backfill: who waits for our workers, for whom do they wait, how far are the replicas? Touches no relation.
WITH locks AS MATERIALIZED (
    SELECT * FROM pg_catalog.pg_locks
),
behind_us AS MATERIALIZED (
    SELECT
        w.pid,
        min(w.waitstart) AS since
    FROM locks AS w
    INNER JOIN locks AS h
        ON h.locktype = w.locktype AND h.database IS NOT DISTINCT FROM w.database
        AND h.relation IS NOT DISTINCT FROM w.relation AND h.page IS NOT DISTINCT FROM w.page
        AND h.tuple IS NOT DISTINCT FROM w.tuple AND h.virtualxid IS NOT DISTINCT FROM w.virtualxid
        AND h.transactionid IS NOT DISTINCT FROM w.transactionid
    WHERE NOT w.granted AND w.pid <> h.pid AND h.granted AND h.pid = ANY(%(workers)s::int[])
        AND NOT w.pid = ANY(%(workers)s::int[])
    GROUP BY w.pid
    ORDER BY since
    LIMIT 20
)
SELECT
    'waiter' AS kind, b.pid, coalesce(a.application_name, '') AS name,
    extract(epoch FROM clock_timestamp() - b.since)::float8 AS seconds, NULL::bigint AS octets,
    a.backend_start, b.since
FROM behind_us AS b
LEFT JOIN pg_catalog.pg_stat_get_activity(b.pid) AS a ON true
WHERE %(workers)s::int[] && pg_catalog.pg_blocking_pids(b.pid)
UNION ALL
SELECT 'holder', h.pid, coalesce(a.application_name, ''), extract(epoch FROM clock_timestamp() - h.since)::float8, NULL,
    NULL, NULL
FROM (
    SELECT unnest(pg_catalog.pg_blocking_pids(w.pid)) AS pid, w.waitstart AS since
    FROM locks AS w
    WHERE NOT w.granted AND w.pid = ANY(%(workers)s::int[])
    LIMIT 3
) AS h
LEFT JOIN pg_catalog.pg_stat_get_activity(h.pid) AS a ON true
WHERE NOT h.pid = ANY(%(workers)s::int[])
UNION ALL
SELECT
    'replica', s.pid, coalesce(a.application_name, ''), extract(epoch FROM s.replay_lag)::float8,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.replay_lsn)::bigint,
    NULL, NULL
FROM pg_catalog.pg_stat_get_wal_senders() AS s
LEFT JOIN pg_catalog.pg_stat_get_activity(s.pid) AS a ON true
