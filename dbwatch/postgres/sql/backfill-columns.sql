-- The columns of a relation, from the catalogue alone.
SELECT
    a.attnum AS number,
    a.attname AS name,
    pg_catalog.format_type(a.atttypid, -1) AS type,
    nullif(a.attcollation, 0)::regcollation::text AS collation,
    a.attgenerated <> '' AS generated,
    a.attidentity = 'a' AS always_identity
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid = %(oid)s::oid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum;
