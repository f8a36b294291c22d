-- Sequences: their parameters and owners, not where they stand. Touches no relation that DDL locks.
SELECT format('sequence %I.%I', n.nspname, c.relname) AS key,
       'sequence' AS kind,
       n.nspname::text AS schema,
       c.relname::text AS name,
       '' AS parent,
       coalesce(o.key, '') AS within,
       c.oid::bigint AS oid,
       concat_ws(
           E'\n',
           'owner ' || pg_get_userbyid(c.relowner),
           format_type(s.seqtypid, NULL),
           format('start %s increment %s minimum %s maximum %s cache %s%s', s.seqstart, s.seqincrement, s.seqmin,
                  s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' cycle' ELSE '' END),
           CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
           'owned by ' || o.key
       ) AS definition
  FROM pg_catalog.pg_sequence AS s
  JOIN pg_catalog.pg_class AS c ON c.oid = s.seqrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL (
      SELECT format('column %I.%I.%I', tn.nspname, t.relname, a.attname) AS key
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_class AS t ON t.oid = d.refobjid
        JOIN pg_catalog.pg_namespace AS tn ON tn.oid = t.relnamespace
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
       WHERE d.classid = 'pg_catalog.pg_class'::regclass
         AND d.objid = c.oid
         AND d.refclassid = 'pg_catalog.pg_class'::regclass
         AND d.deptype IN ('a', 'i')
         AND d.refobjsubid > 0
       LIMIT 1
  ) AS o ON true
 WHERE n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
