-- Constraints of tables, with the state of the index and of the triggers behind them. CHECK and index definitions wait
-- for ACCESS EXCLUSIVE.
SELECT format('constraint %I.%I.%I', n.nspname, c.relname, o.conname) AS key,
       'constraint' AS kind,
       n.nspname::text AS schema,
       o.conname::text AS name,
       c.relname::text AS parent,
       coalesce(
           CASE
               WHEN o.conparentid <> 0 THEN
                   (SELECT format('constraint %I.%I.%I', pn.nspname, pc.relname, po.conname)
                      FROM pg_catalog.pg_constraint AS po
                      JOIN pg_catalog.pg_class AS pc ON pc.oid = po.conrelid
                      JOIN pg_catalog.pg_namespace AS pn ON pn.oid = pc.relnamespace
                     WHERE po.oid = o.conparentid)
               WHEN o.contype = 'c' AND o.coninhcount > 0 AND NOT o.conislocal THEN
                   (SELECT format('constraint %I.%I.%I', pn.nspname, pc.relname, po.conname)
                      FROM pg_catalog.pg_inherits AS h
                      JOIN pg_catalog.pg_constraint AS po ON po.conrelid = h.inhparent AND po.conname = o.conname
                      JOIN pg_catalog.pg_class AS pc ON pc.oid = po.conrelid
                      JOIN pg_catalog.pg_namespace AS pn ON pn.oid = pc.relnamespace
                     WHERE h.inhrelid = c.oid AND po.contype = 'c'
                     ORDER BY h.inhseqno
                     LIMIT 1)
               WHEN o.contype = 'n' THEN
                   (SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname)
                      FROM pg_catalog.pg_attribute AS a
                     WHERE a.attrelid = o.conrelid AND a.attnum = o.conkey[1])
           END,
           format('%s %I.%I', k.kind, n.nspname, c.relname)) AS within,
       o.oid::bigint AS oid,
       concat_ws(
           E'\n',
           pg_get_constraintdef(o.oid),
           CASE WHEN o.coninhcount > 0 THEN format('inherited %s times%s', o.coninhcount,
                                                   CASE WHEN o.conislocal THEN ', local too' ELSE '' END) END,
           'by ' || pg_get_indexdef(i.oid),
           CASE WHEN NOT x.indisvalid THEN 'invalid' END,
           CASE WHEN NOT x.indisready THEN 'not ready' END,
           CASE WHEN x.indisclustered THEN 'clustered' END,
           CASE WHEN x.indisreplident THEN 'replica identity' END,
           'tablespace ' || (SELECT s.spcname FROM pg_catalog.pg_tablespace AS s WHERE s.oid = i.reltablespace),
           (SELECT string_agg(x.line, E'\n' ORDER BY x.line COLLATE "C")
              FROM (SELECT DISTINCT format('its triggers on %s enabled %s', t.tgrelid::regclass, t.tgenabled)
                      FROM pg_catalog.pg_trigger AS t
                     WHERE t.tgconstraint = o.oid AND t.tgisinternal AND t.tgenabled <> 'O') AS x(line))
       ) AS definition
  FROM pg_catalog.pg_constraint AS o
  JOIN pg_catalog.pg_class AS c ON c.oid = o.conrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  JOIN (VALUES ('r'::"char", 'table'), ('p', 'table'), ('f', 'foreign table')) AS k(relkind, kind) ON k.relkind = c.relkind
  LEFT JOIN pg_catalog.pg_index AS x ON x.indexrelid = o.conindid AND o.contype IN ('p', 'u', 'x')
  LEFT JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
 WHERE o.contype <> 't'
   AND n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
