-- The unique indexes of a relation with all that decides whether a walk can go by them, from the catalogue alone.
-- A NOT NULL constraint that is not validated (18) leaves NULLs in a column that attnotnull calls free of them.
SELECT
    ic.relname AS index,
    i.indisprimary AS is_primary,
    i.indisvalid AND i.indislive AND i.indisready AS valid,
    i.indimmediate AS immediate,
    i.indpred IS NOT NULL AS partial,
    i.indexprs IS NOT NULL AS on_expressions,
    am.amname = 'btree' AS btree,
    k.columns,
    k.types,
    k.base_types,
    k.collations,
    k.nullable,
    k.generated,
    k.default_order,
    k.one_direction
FROM pg_catalog.pg_index AS i
INNER JOIN pg_catalog.pg_class AS ic ON ic.oid = i.indexrelid
INNER JOIN pg_catalog.pg_am AS am ON am.oid = ic.relam
CROSS JOIN LATERAL (
    SELECT
        array_agg(a.attname::text ORDER BY u.n) AS columns,
        array_agg(pg_catalog.format_type(a.atttypid, -1) ORDER BY u.n) AS types,
        array_agg(CASE WHEN bt.typtype = 'e' THEN 'enum' ELSE bt.typname::text END ORDER BY u.n) AS base_types,
        array_agg(
            CASE
                WHEN u.collation_oid <> a.attcollation
                    THEN pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
            END
            ORDER BY u.n
        ) AS collations,
        bool_or(
            NOT a.attnotnull OR EXISTS (
                SELECT FROM pg_catalog.pg_constraint AS c
                WHERE c.conrelid = i.indrelid AND c.contype = 'n' AND NOT c.convalidated AND c.conkey = ARRAY[a.attnum]
            )
        ) AS nullable,
        bool_or(a.attgenerated <> '') AS generated,
        bool_and(oc.opcdefault) AS default_order,
        count(DISTINCT u.option & 1) = 1 AS one_direction
    FROM unnest(
        i.indkey::smallint[], i.indclass::oid[], i.indcollation::oid[], i.indoption::smallint[]
    ) WITH ORDINALITY AS u (attnum, class_oid, collation_oid, option, n)
    INNER JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
    INNER JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
    INNER JOIN pg_catalog.pg_type AS bt ON bt.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
    INNER JOIN pg_catalog.pg_opclass AS oc ON oc.oid = u.class_oid
    LEFT JOIN pg_catalog.pg_collation AS co ON co.oid = nullif(u.collation_oid, 0)
    LEFT JOIN pg_catalog.pg_namespace AS cn ON cn.oid = co.collnamespace
    WHERE u.n <= i.indnkeyatts
) AS k
WHERE i.indrelid = %(oid)s::oid AND i.indisunique
ORDER BY i.indisprimary DESC, i.indnkeyatts, ic.relname;
