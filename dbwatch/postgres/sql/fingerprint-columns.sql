-- Columns by name, each table's in the order of their numbers. A generated column's expression waits for ACCESS EXCLUSIVE.
SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname) AS key,
       'column' AS kind,
       n.nspname::text AS schema,
       a.attname::text AS name,
       c.relname::text AS parent,
       CASE WHEN a.attinhcount > 0 AND NOT a.attislocal
            THEN (SELECT format('column %I.%I.%I', hn.nspname, h.relname, a.attname)
                    FROM pg_catalog.pg_inherits AS i
                    JOIN pg_catalog.pg_class AS h ON h.oid = i.inhparent
                    JOIN pg_catalog.pg_namespace AS hn ON hn.oid = h.relnamespace
                    JOIN pg_catalog.pg_attribute AS ha ON ha.attrelid = h.oid AND ha.attname = a.attname
                   WHERE i.inhrelid = c.oid AND NOT ha.attisdropped
                   ORDER BY i.inhseqno
                   LIMIT 1)
            ELSE format('%s %I.%I', k.kind, n.nspname, c.relname) END AS within,
       c.oid::bigint AS oid,
       concat_ws(
           E'\n',
           format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attnotnull THEN 'not null' END,
           CASE a.attgenerated
               WHEN '' THEN 'default ' || pg_get_expr(d.adbin, 0)
               ELSE format('generated (%s) %s', a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
           END,
           CASE a.attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity by default' END,
           CASE WHEN a.attcollation <> t.typcollation
                THEN (SELECT format('collation %I.%I', ln.nspname, l.collname)
                        FROM pg_catalog.pg_collation AS l
                        JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
                       WHERE l.oid = a.attcollation) END,
           CASE WHEN a.attstorage <> t.typstorage THEN 'storage ' || a.attstorage::text END,
           CASE WHEN coalesce(a.attstattarget, -1) <> -1 THEN 'statistics target ' || a.attstattarget END,
           'options ' || (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(a.attoptions) AS o),
           'foreign options ' || a.attfdwoptions::text,
           CASE WHEN a.attinhcount > 0 THEN format('inherited %s times%s', a.attinhcount,
                                                   CASE WHEN a.attislocal THEN ', local too' ELSE '' END) END
       ) AS definition
  FROM pg_catalog.pg_attribute AS a
  JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN (VALUES ('r'::"char", 'table'), ('p', 'table'), ('f', 'foreign table'), ('v', 'view'), ('m', 'materialized view'))
       AS k(relkind, kind) ON k.relkind = c.relkind
  JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attnum > 0
   AND NOT a.attisdropped
   AND n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY a.attrelid, a.attnum
