-- dbwatch backfill: how large is the heap of the table, with its partitions, on disk now? pg_relation_size waits behind
-- an ACCESS EXCLUSIVE that is held or wanted: to be asked seldom, and under a lock_timeout of its own.
WITH RECURSIVE parts AS (
    SELECT pg_catalog.to_regclass(%(relation)s)::oid AS oid
    UNION
    SELECT i.inhrelid
    FROM parts AS p
    INNER JOIN pg_catalog.pg_inherits AS i ON i.inhparent = p.oid
)
SELECT sum(pg_catalog.pg_relation_size(c.oid))::bigint
FROM parts AS p
INNER JOIN pg_catalog.pg_class AS c ON c.oid = p.oid AND c.relkind = 'r'
