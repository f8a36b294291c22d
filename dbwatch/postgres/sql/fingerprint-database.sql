-- What belongs to the database as a whole: schemas, extensions, event triggers, default privileges, statistics objects.
-- pg_get_statisticsobjdef waits for ACCESS EXCLUSIVE from 14 on.
SELECT format('schema %I', n.nspname) AS key,
       'schema' AS kind,
       '' AS schema,
       n.nspname::text AS name,
       '' AS parent,
       '' AS within,
       n.oid::bigint AS oid,
       'owner ' || pg_get_userbyid(n.nspowner) AS definition
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'dbwatch')
UNION ALL
SELECT format('extension %I', e.extname),
       'extension',
       '',
       e.extname::text,
       '',
       '',
       e.oid::bigint,
       format('version %s in schema %I, owner %s', e.extversion, n.nspname, pg_get_userbyid(e.extowner))
  FROM pg_catalog.pg_extension AS e
  JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
UNION ALL
SELECT format('event trigger %I', t.evtname),
       'event trigger',
       '',
       t.evtname::text,
       '',
       '',
       t.oid::bigint,
       format('on %s execute %s, tags %s, enabled %s, owner %s', t.evtevent, t.evtfoid::regprocedure, t.evttags::text,
              t.evtenabled, pg_get_userbyid(t.evtowner))
  FROM pg_catalog.pg_event_trigger AS t
 WHERE NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_event_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'e')
UNION ALL
SELECT format('default privileges of %I on %s%s', pg_get_userbyid(a.defaclrole), a.defaclobjtype,
              coalesce(' in schema ' || quote_ident(n.nspname), '')),
       'default privileges',
       coalesce(n.nspname, '')::text,
       a.defaclobjtype::text,
       '',
       '',
       a.oid::bigint,
       (SELECT string_agg(x.line, E'\n' ORDER BY x.line COLLATE "C")
          FROM (SELECT format('%s to %s by %s%s', e.privilege_type,
                              CASE e.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(e.grantee) END,
                              pg_get_userbyid(e.grantor), CASE WHEN e.is_grantable THEN ' with grant option' ELSE '' END)
                  FROM aclexplode(a.defaclacl) AS e) AS x(line))
  FROM pg_catalog.pg_default_acl AS a
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = a.defaclnamespace
 WHERE coalesce(n.nspname, '') <> 'dbwatch'
UNION ALL
SELECT format('statistics %I.%I', n.nspname, s.stxname),
       'statistics',
       n.nspname::text,
       s.stxname::text,
       '',
       '',
       s.oid::bigint,
       concat_ws(E'\n', pg_get_statisticsobjdef(s.oid), 'owner ' || pg_get_userbyid(s.stxowner),
                 CASE WHEN coalesce(s.stxstattarget, -1) <> -1 THEN 'statistics target ' || s.stxstattarget END)
  FROM pg_catalog.pg_statistic_ext AS s
  JOIN pg_catalog.pg_namespace AS n ON n.oid = s.stxnamespace
 WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'dbwatch')
