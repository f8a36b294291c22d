-- dbwatch backfill: how busy is the server, how far is its WAL, and is it still the same one? Reads shared memory and
-- settings only. Without pg_read_all_stats the state of others is hidden: then nobody knows how many are active.
SELECT
    CASE WHEN a.told THEN count(*) FILTER (WHERE a.other AND a.state = 'active') END,
    CASE
        WHEN a.told THEN
            count(*) FILTER (
                WHERE a.other AND (a.state = 'active' OR a.state_change > clock_timestamp() - INTERVAL '1 s')
            )
    END,
    count(*) FILTER (WHERE a.told AND a.other AND a.state_change > clock_timestamp() - INTERVAL '1 s'),
    count(*) FILTER (
        WHERE a.told AND a.other AND a.state = 'active' AND a.state_change > clock_timestamp() - INTERVAL '1 s'
    ),
    count(*) FILTER (WHERE a.client),
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
    CASE
        WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '0/0')::bigint
    END,
    pg_catalog.pg_size_bytes(current_setting('max_wal_size')),
    extract(EPOCH FROM current_setting('checkpoint_timeout')::interval)::float8,
    (SELECT s.system_identifier::text FROM pg_catalog.pg_control_system() AS s),
    CASE
        WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8)
        ELSE ''
    END,
    pg_catalog.pg_postmaster_start_time()::text
FROM (
    SELECT
        c.*,
        c.client AND left(coalesce(c.application_name, ''), 8) <> 'dbwatch ' AS other,
        pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS told
    FROM (
        SELECT
            s.state, s.state_change, s.application_name,
            s.backend_type = 'client backend'
            OR (s.backend_type IS NULL AND s.datid IS NOT NULL AND s.usesysid IS NOT NULL) AS client
        FROM pg_catalog.pg_stat_get_activity(NULL) AS s
    ) AS c
) AS a
GROUP BY a.told;
