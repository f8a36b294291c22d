-- Privileges that differ from what the object's owner gets by default. Touches no relation that DDL locks.
WITH holder AS (
    SELECT format('%s %I.%I', k.kind, n.nspname, c.relname) AS key,
           n.nspname, c.relname AS name, '' AS parent, c.oid, 'pg_catalog.pg_class'::regclass AS classid, c.oid AS owning,
           c.relacl AS acl, acldefault(k.acl, c.relowner) AS given
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN (VALUES ('r'::"char", 'table', 'r'::"char"), ('p', 'table', 'r'), ('f', 'foreign table', 'r'),
                   ('v', 'view', 'r'), ('m', 'materialized view', 'r'), ('S', 'sequence', 's')) AS k(relkind, kind, acl)
           ON k.relkind = c.relkind
    UNION ALL
    SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname),
           n.nspname, a.attname, c.relname, c.oid, 'pg_catalog.pg_class'::regclass, c.oid,
           a.attacl, acldefault('c', c.relowner)
      FROM pg_catalog.pg_attribute AS a
      JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE NOT a.attisdropped
    UNION ALL
    SELECT format('%s %I.%I(%s)', k.kind, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
           n.nspname, p.proname, '', p.oid, 'pg_catalog.pg_proc'::regclass, p.oid,
           p.proacl, acldefault('f', p.proowner)
      FROM pg_catalog.pg_proc AS p
      JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
      JOIN (VALUES ('f'::"char", 'function'), ('w', 'function'), ('p', 'procedure'), ('a', 'aggregate')) AS k(prokind, kind)
           ON k.prokind = p.prokind
     WHERE p.proacl IS NOT NULL
    UNION ALL
    SELECT format('%s %I.%I', CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, n.nspname, t.typname),
           n.nspname, t.typname, '', t.oid, 'pg_catalog.pg_type'::regclass, t.oid,
           t.typacl, acldefault('T', t.typowner)
      FROM pg_catalog.pg_type AS t
      JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    UNION ALL
    SELECT format('schema %I', n.nspname),
           n.nspname, n.nspname, '', n.oid, 'pg_catalog.pg_namespace'::regclass, n.oid,
           n.nspacl, acldefault('n', n.nspowner)
      FROM pg_catalog.pg_namespace AS n
)
SELECT 'privileges on ' || h.key AS key,
       'privileges' AS kind,
       h.nspname::text AS schema,
       h.name::text AS name,
       h.parent::text AS parent,
       h.key AS within,
       h.oid::bigint AS oid,
       l.lines AS definition
  FROM holder AS h
 CROSS JOIN LATERAL (
      SELECT string_agg(x.line, E'\n' ORDER BY x.line COLLATE "C") AS lines
        FROM (SELECT format('%s %s to %s by %s%s', e.word, e.privilege_type,
                            CASE e.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(e.grantee) END,
                            pg_get_userbyid(e.grantor), CASE WHEN e.is_grantable THEN ' with grant option' ELSE '' END)
                FROM (SELECT 'grant' AS word, * FROM (SELECT * FROM aclexplode(h.acl)
                                                      EXCEPT SELECT * FROM aclexplode(h.given)) AS more
                      UNION ALL
                      SELECT 'lacks', * FROM (SELECT * FROM aclexplode(h.given)
                                              EXCEPT SELECT * FROM aclexplode(h.acl)) AS fewer) AS e) AS x(line)
 ) AS l
 WHERE h.acl IS NOT NULL
   AND l.lines IS NOT NULL
   AND h.nspname NOT LIKE 'pg\_%'
   AND h.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = h.classid AND d.objid = h.owning AND d.deptype = 'e')
