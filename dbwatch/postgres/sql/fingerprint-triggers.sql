-- Triggers, rules and row security policies of relations. Conditions and policies wait for ACCESS EXCLUSIVE.
WITH relation AS (
    SELECT c.oid, n.nspname, c.relname, format('%s %I.%I', k.kind, n.nspname, c.relname) AS key
      FROM pg_catalog.pg_class AS c
      JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
      JOIN (VALUES ('r'::"char", 'table'), ('p', 'table'), ('f', 'foreign table'), ('v', 'view'), ('m', 'materialized view'))
           AS k(relkind, kind) ON k.relkind = c.relkind
     WHERE n.nspname NOT LIKE 'pg\_%'
       AND n.nspname NOT IN ('information_schema', 'dbwatch')
       AND NOT EXISTS (SELECT
                         FROM pg_catalog.pg_depend AS d
                        WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
)
SELECT format('trigger %I.%I.%I', r.nspname, r.relname, t.tgname) AS key,
       'trigger' AS kind,
       r.nspname::text AS schema,
       t.tgname::text AS name,
       r.relname::text AS parent,
       coalesce((SELECT format('trigger %I.%I.%I', pr.nspname, pr.relname, pt.tgname)
                   FROM pg_catalog.pg_trigger AS pt
                   JOIN relation AS pr ON pr.oid = pt.tgrelid
                  WHERE pt.oid = t.tgparentid), r.key) AS within,
       t.oid::bigint AS oid,
       concat_ws(E'\n', pg_get_triggerdef(t.oid), CASE WHEN t.tgenabled <> 'O' THEN 'enabled ' || t.tgenabled::text END)
           AS definition
  FROM pg_catalog.pg_trigger AS t
  JOIN relation AS r ON r.oid = t.tgrelid
 WHERE NOT t.tgisinternal
UNION ALL
SELECT format('rule %I.%I.%I', r.nspname, r.relname, w.rulename),
       'rule',
       r.nspname::text,
       w.rulename::text,
       r.relname::text,
       r.key,
       w.oid::bigint,
       concat_ws(E'\n', pg_get_ruledef(w.oid), CASE WHEN w.ev_enabled <> 'O' THEN 'enabled ' || w.ev_enabled::text END)
  FROM pg_catalog.pg_rewrite AS w
  JOIN relation AS r ON r.oid = w.ev_class
 WHERE w.rulename <> '_RETURN'
UNION ALL
SELECT format('policy %I.%I.%I', r.nspname, r.relname, p.polname),
       'policy',
       r.nspname::text,
       p.polname::text,
       r.relname::text,
       r.key,
       p.oid::bigint,
       concat_ws(
           E'\n',
           CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
           'for ' || p.polcmd::text,
           'to ' || (SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE pg_get_userbyid(o) END, ', '
                                       ORDER BY CASE o WHEN 0 THEN 'public' ELSE pg_get_userbyid(o) END)
                       FROM unnest(p.polroles) AS o),
           'using ' || pg_get_expr(p.polqual, p.polrelid),
           'with check ' || pg_get_expr(p.polwithcheck, p.polrelid)
       )
  FROM pg_catalog.pg_policy AS p
  JOIN relation AS r ON r.oid = p.polrelid
