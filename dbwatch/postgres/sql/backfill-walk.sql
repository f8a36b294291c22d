-- What decides whether a walk in stripes can pay: how the key's first column lies in the heap, and which indexes an
-- update of the columns that SET assigns has to write (a plain column of theirs, or one in an expression or predicate
-- of theirs; summarizing ones need no entry from 16 on).
WITH RECURSIVE relations AS (
    SELECT %(oid)s::oid AS oid
    UNION ALL
    SELECT i.inhrelid FROM pg_catalog.pg_inherits AS i
    INNER JOIN relations AS r ON r.oid = i.inhparent
)
SELECT
    (
        SELECT abs(s.correlation)::double precision
        FROM pg_catalog.pg_stats AS s
        WHERE s.schemaname = %(schema)s AND s.tablename = %(table)s AND s.attname = %(key)s AND NOT s.inherited
    ) AS correlation,
    coalesce(
        (
            SELECT array_agg(ic.relname::text ORDER BY ic.relname)
            FROM pg_catalog.pg_index AS i
            INNER JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
            INNER JOIN pg_catalog.pg_am AS am ON am.oid = ic.relam
            WHERE
                i.indrelid = %(oid)s::oid
                AND (am.amname <> 'brin' OR current_setting('server_version_num')::integer < 160000)
                AND EXISTS (
                    SELECT FROM pg_catalog.pg_attribute AS a
                    WHERE
                        a.attrelid = i.indrelid AND a.attname = ANY(%(targets)s)
                        AND (
                            a.attnum = ANY(i.indkey::smallint[])
                            OR EXISTS (
                                SELECT FROM pg_catalog.pg_depend AS d
                                WHERE
                                    d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
                                    AND d.refclassid = 'pg_catalog.pg_class'::regclass
                                    AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum
                            )
                        )
                )
        ),
        '{}'
    ) AS indexes,
    (
        SELECT coalesce(sum(c.relpages), 0)::bigint * current_setting('block_size')::bigint
        FROM relations AS r
        INNER JOIN pg_catalog.pg_class AS c ON c.oid = r.oid
    ) AS heap_bytes,
    (SELECT count(*) FROM pg_catalog.pg_index AS i WHERE i.indrelid = %(oid)s::oid) AS indexes_all,
    current_setting('block_size')::integer AS block_bytes;
