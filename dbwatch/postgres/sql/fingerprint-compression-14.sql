-- Columns with a compression method of their own. Touches no relation that DDL locks.
SELECT format('compression of %I.%I.%I', n.nspname, c.relname, a.attname) AS key,
       'compression' AS kind,
       n.nspname::text AS schema,
       a.attname::text AS name,
       c.relname::text AS parent,
       format('column %I.%I.%I', n.nspname, c.relname, a.attname) AS within,
       c.oid::bigint AS oid,
       a.attcompression::text AS definition
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE a.attnum > 0
   AND NOT a.attisdropped
   AND a.attcompression <> ''
   AND c.relkind IN ('r', 'p', 'm')
   AND n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
