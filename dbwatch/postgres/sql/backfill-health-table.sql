-- dbwatch backfill: how many dead rows has the table, with its partitions, is it vacuumed, how old is it? Reads the
-- catalogue and the statistics; waits for no lock on the table.
WITH RECURSIVE parts AS (
    SELECT pg_catalog.to_regclass(%(relation)s)::oid AS oid
    UNION
    SELECT i.inhrelid
    FROM parts AS p
    INNER JOIN pg_catalog.pg_inherits AS i ON i.inhparent = p.oid
),
tables AS (
    SELECT
        c.oid, c.relfrozenxid,
        NOT EXISTS (
            SELECT FROM unnest(c.reloptions) AS o
            WHERE split_part(o, '=', 1) = 'autovacuum_enabled' AND NOT split_part(o, '=', 2)::bool
        ) AS cleaned
    FROM parts AS p
    INNER JOIN pg_catalog.pg_class AS c ON c.oid = p.oid AND c.relkind = 'r'
)
SELECT
    sum(pg_catalog.pg_stat_get_live_tuples(t.oid))::bigint,
    sum(pg_catalog.pg_stat_get_dead_tuples(t.oid))::bigint,
    sum(pg_catalog.pg_stat_get_tuples_updated(t.oid))::bigint,
    sum(pg_catalog.pg_stat_get_tuples_hot_updated(t.oid))::bigint,
    max(pg_catalog.age(t.relfrozenxid))::bigint,
    max(v.param1), max(v.param2), max(v.param3),
    bool_and(t.cleaned) AND current_setting('autovacuum')::bool AND current_setting('track_counts')::bool
FROM tables AS t
LEFT JOIN pg_catalog.pg_stat_get_progress_info('VACUUM') AS v
    ON v.relid = t.oid
    AND v.datid = (SELECT a.datid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a)
HAVING count(*) > 0;
