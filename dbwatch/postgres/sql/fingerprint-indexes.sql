-- Indexes that back no constraint (those are told with it), invalid ones too. pg_get_indexdef waits for ACCESS EXCLUSIVE.
SELECT format('index %I.%I', n.nspname, c.relname) AS key,
       'index' AS kind,
       n.nspname::text AS schema,
       c.relname::text AS name,
       r.relname::text AS parent,
       coalesce((SELECT format('index %I.%I', pn.nspname, p.relname)
                   FROM pg_catalog.pg_inherits AS h
                   JOIN pg_catalog.pg_class AS p ON p.oid = h.inhparent
                   JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
                  WHERE h.inhrelid = c.oid),
                format('%s %I.%I', k.kind, n.nspname, r.relname)) AS within,
       c.oid::bigint AS oid,
       concat_ws(
           E'\n',
           pg_get_indexdef(c.oid),
           CASE WHEN c.relkind = 'I' THEN 'partitioned' END,
           CASE WHEN NOT x.indisvalid THEN 'invalid' END,
           CASE WHEN NOT x.indisready THEN 'not ready' END,
           CASE WHEN NOT x.indislive THEN 'not live' END,
           CASE WHEN x.indisclustered THEN 'clustered' END,
           CASE WHEN x.indisreplident THEN 'replica identity' END,
           'tablespace ' || (SELECT s.spcname FROM pg_catalog.pg_tablespace AS s WHERE s.oid = c.reltablespace),
           'statistics targets ' || (SELECT string_agg(format('%s: %s', a.attnum, a.attstattarget), ', ' ORDER BY a.attnum)
                                       FROM pg_catalog.pg_attribute AS a
                                      WHERE a.attrelid = c.oid AND coalesce(a.attstattarget, -1) <> -1)
       ) AS definition
  FROM pg_catalog.pg_index AS x
  JOIN pg_catalog.pg_class AS c ON c.oid = x.indexrelid
  JOIN pg_catalog.pg_class AS r ON r.oid = x.indrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = r.relnamespace
  JOIN (VALUES ('r'::"char", 'table'), ('p', 'table'), ('m', 'materialized view')) AS k(relkind, kind)
       ON k.relkind = r.relkind
 WHERE n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_constraint AS o
                    WHERE o.conindid = x.indexrelid AND o.contype IN ('p', 'u', 'x') AND o.conrelid = x.indrelid)
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid IN (c.oid, r.oid) AND d.deptype = 'e')
