-- Tables, partitions, foreign tables, views and materialized views. pg_get_viewdef and bounds wait for ACCESS EXCLUSIVE.
SELECT format('%s %I.%I', k.kind, n.nspname, c.relname) AS key,
       k.kind,
       n.nspname::text AS schema,
       c.relname::text AS name,
       '' AS parent,
       CASE WHEN c.relispartition THEN format('table %I.%I', pn.nspname, p.relname) ELSE '' END AS within,
       c.oid::bigint AS oid,
       concat_ws(
           E'\n',
           'owner ' || pg_get_userbyid(c.relowner),
           CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
           'partitioned by ' || pg_get_partkeydef(c.oid),
           CASE WHEN c.relispartition
                THEN format('partition of %I.%I %s', pn.nspname, p.relname, pg_get_expr(c.relpartbound, c.oid)) END,
           CASE WHEN to_jsonb(i) ->> 'inhdetachpending' = 'true' THEN 'detach pending' END,
           'inherits ' || (SELECT string_agg(format('%I.%I', hn.nspname, h.relname), ', ' ORDER BY i.inhseqno)
                             FROM pg_catalog.pg_inherits AS i
                             JOIN pg_catalog.pg_class AS h ON h.oid = i.inhparent
                             JOIN pg_catalog.pg_namespace AS hn ON hn.oid = h.relnamespace
                            WHERE i.inhrelid = c.oid AND NOT c.relispartition),
           'of type ' || format_type(nullif(c.reloftype, 0), NULL),
           'access method ' || (SELECT a.amname FROM pg_catalog.pg_am AS a WHERE a.oid = c.relam),
           'tablespace ' || (SELECT s.spcname FROM pg_catalog.pg_tablespace AS s WHERE s.oid = c.reltablespace),
           'options ' || (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C") FROM unnest(c.reloptions) AS o),
           'toast options ' || (SELECT string_agg(o, ', ' ORDER BY o COLLATE "C")
                                  FROM pg_catalog.pg_class AS t, unnest(t.reloptions) AS o
                                 WHERE t.oid = c.reltoastrelid),
           CASE WHEN c.relrowsecurity THEN 'row level security enabled' END,
           CASE WHEN c.relforcerowsecurity THEN 'row level security forced' END,
           CASE WHEN c.relkind IN ('r', 'p') AND c.relreplident <> 'd' THEN 'replica identity ' || c.relreplident::text END,
           CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'not populated' END,
           'server ' || (SELECT format('%I options %s', s.srvname, f.ftoptions::text)
                           FROM pg_catalog.pg_foreign_table AS f
                           JOIN pg_catalog.pg_foreign_server AS s ON s.oid = f.ftserver
                          WHERE f.ftrelid = c.oid),
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END
       ) AS definition
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN (VALUES ('r'::"char", 'table'), ('p', 'table'), ('f', 'foreign table'), ('v', 'view'), ('m', 'materialized view'))
       AS k(relkind, kind) ON k.relkind = c.relkind
  LEFT JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = c.oid AND c.relispartition
  LEFT JOIN pg_catalog.pg_class AS p ON p.oid = i.inhparent
  LEFT JOIN pg_catalog.pg_namespace AS pn ON pn.oid = p.relnamespace
 WHERE n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
