-- The partitions of a table that hold rows, by the catalogue alone; none where it is a plain one.
WITH RECURSIVE parts AS (
    SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits AS i
    WHERE i.inhparent = %(oid)s::oid
    UNION ALL
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i
    INNER JOIN parts AS p ON p.oid = i.inhparent
)
SELECT
    c.oid::bigint AS oid,
    n.nspname AS schema,
    c.relname AS name,
    c.relkind::text AS kind,
    c.reltuples::double precision AS rows,
    c.relpages AS pages,
    pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE')
    AND NOT pg_catalog.row_security_active(c.oid) AS ours
FROM parts AS p
INNER JOIN pg_catalog.pg_class AS c ON c.oid = p.oid
INNER JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind <> 'p'
ORDER BY n.nspname, c.relname;
