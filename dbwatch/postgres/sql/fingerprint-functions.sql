-- Functions, procedures and aggregates, by the digest of their whole definition. Touches no relation that DDL locks.
SELECT format('%s %I.%I(%s)', k.kind, n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) AS key,
       k.kind,
       n.nspname::text AS schema,
       p.proname::text AS name,
       '' AS parent,
       '' AS within,
       p.oid::bigint AS oid,
       concat_ws(
           E'\n',
           'owner ' || pg_get_userbyid(p.proowner),
           'returns ' || pg_get_function_result(p.oid),
           'language ' || (SELECT l.lanname FROM pg_catalog.pg_language AS l WHERE l.oid = p.prolang),
           CASE p.prokind
               WHEN 'a' THEN (SELECT 'aggregate ' || (to_jsonb(a) - 'aggfnoid')::text
                                FROM pg_catalog.pg_aggregate AS a
                               WHERE a.aggfnoid = p.oid)
               ELSE 'digest ' || encode(sha256(convert_to(pg_get_functiondef(p.oid), 'UTF8')), 'hex')
           END
       ) AS definition
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN (VALUES ('f'::"char", 'function'), ('w', 'function'), ('p', 'procedure'), ('a', 'aggregate')) AS k(prokind, kind)
       ON k.prokind = p.prokind
 WHERE n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
