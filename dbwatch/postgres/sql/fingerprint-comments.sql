-- Comments and security labels on objects that are no extension's. Touches no relation that DDL locks.
SELECT format('%s on %s %s', s.kind, i.type, i.identity) AS key,
       s.kind,
       coalesce(i.schema, '') AS schema,
       i.identity AS name,
       '' AS parent,
       coalesce((SELECT CASE s.objsubid WHEN 0 THEN format('%s %s', k.kind, i.identity)
                                        ELSE format('column %s', i.identity) END
                   FROM pg_catalog.pg_class AS c
                   JOIN (VALUES ('r'::"char", 'table'), ('p', 'table'), ('f', 'foreign table'), ('v', 'view'),
                                ('m', 'materialized view'), ('S', 'sequence'), ('i', 'index'), ('I', 'index'))
                        AS k(relkind, kind) ON k.relkind = c.relkind
                  WHERE s.classoid = 'pg_catalog.pg_class'::regclass AND c.oid = s.objoid),
                format('%s %s', i.type, i.identity)) AS within,
       s.objoid::bigint AS oid,
       s.said AS definition
  FROM (SELECT 'comment' AS kind, d.classoid, d.objoid, d.objsubid, d.description AS said
          FROM pg_catalog.pg_description AS d
        UNION ALL
        SELECT 'security label', l.classoid, l.objoid, l.objsubid, l.provider || ': ' || l.label
          FROM pg_catalog.pg_seclabel AS l) AS s
 CROSS JOIN LATERAL pg_identify_object(s.classoid, s.objoid, s.objsubid) AS i
 WHERE (s.objoid >= 16384 OR s.classoid = 'pg_catalog.pg_namespace'::regclass)
   AND i.identity IS NOT NULL
   AND coalesce(i.schema, '') NOT LIKE 'pg\_%'
   AND coalesce(i.schema, '') NOT IN ('information_schema', 'dbwatch')
   AND NOT (i.type = 'schema' AND (i.name LIKE 'pg\_%' OR i.name IN ('information_schema', 'dbwatch')))
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = s.classoid AND d.objid = s.objoid AND d.deptype = 'e')
