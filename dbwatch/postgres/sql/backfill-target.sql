-- What the relation to be filled is, from the catalogue alone: nothing here waits for a lock on it.
SELECT
    c.oid::bigint AS oid,
    n.nspname AS schema,
    c.relname AS name,
    c.relkind::text AS kind,
    c.relhasrules AS has_rules,
    EXISTS (
        SELECT FROM pg_catalog.pg_inherits AS i
        WHERE i.inhparent = c.oid
    ) AS has_children,
    pg_catalog.row_security_active(c.oid) AS hides_rows,
    coalesce(
        (
            SELECT array_agg(t.tgname::text ORDER BY t.tgname)
            FROM pg_catalog.pg_trigger AS t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgtype & 16 > 0
        ),
        '{}'
    ) AS update_triggers,
    coalesce(
        (
            WITH RECURSIVE parts AS (
                SELECT c.oid
                UNION ALL
                SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i
                INNER JOIN parts AS p ON p.oid = i.inhparent
            )
            SELECT array_agg(DISTINCT a.attname::text ORDER BY a.attname::text)
            FROM parts AS p
            INNER JOIN pg_catalog.pg_partitioned_table AS d ON d.partrelid = p.oid
            INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = p.oid AND a.attnum = ANY(d.partattrs)
        ),
        '{}'
    ) AS divided_by,
    pg_catalog.pg_is_in_recovery() AS in_recovery,
    (
        SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings AS s
        WHERE s.name = 'default_transaction_read_only'
    ) AS read_only,
    current_user::text AS role,
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all
FROM pg_catalog.pg_class AS c
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = pg_catalog.to_regclass(%(table)s);
