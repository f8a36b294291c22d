-- dbwatch backfill: what of the server's health can our role see, and what of it is there at all? Reads shared memory
-- and the catalogue; touches no relation of anybody's.
SELECT
    current_user::text AS role,
    (SELECT d.oid::bigint FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()) AS database,
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
    e.schema AS statements_schema,
    coalesce(e.new_enough, false) AS statements_new_enough,
    current_setting('pg_stat_statements.max', true) IS NOT NULL AS statements_loaded,
    coalesce(e.usable, false) AS statements_usable,
    (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders())::int AS replicas,
    (SELECT count(*) FROM pg_catalog.pg_get_replication_slots())::int AS slots,
    pg_catalog.pg_size_bytes(current_setting('max_wal_size')) AS max_wal_size
FROM (SELECT) AS one
LEFT JOIN (
    SELECT
        n.nspname::text AS schema,
        string_to_array(x.extversion, '.')::int[] >= '{1,8}' AS new_enough,
        pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS usable
    FROM pg_catalog.pg_extension AS x
    INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = x.extnamespace
    WHERE x.extname = 'pg_stat_statements'
) AS e ON true;
