-- Enums, domains, composite, range and base types; row types, arrays and multiranges go with what they belong to.
SELECT format('%s %I.%I', k.kind, n.nspname, t.typname) AS key,
       k.kind,
       n.nspname::text AS schema,
       t.typname::text AS name,
       '' AS parent,
       '' AS within,
       t.oid::bigint AS oid,
       concat_ws(
           E'\n',
           'owner ' || pg_get_userbyid(t.typowner),
           'enum ' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                         FROM pg_catalog.pg_enum AS e
                        WHERE e.enumtypid = t.oid),
           CASE t.typtype WHEN 'd' THEN
               concat_ws(
                   ' ',
                   'domain over ' || format_type(t.typbasetype, t.typtypmod),
                   CASE WHEN t.typcollation <> b.typcollation
                        THEN (SELECT format('collate %I.%I', ln.nspname, l.collname)
                                FROM pg_catalog.pg_collation AS l
                                JOIN pg_catalog.pg_namespace AS ln ON ln.oid = l.collnamespace
                               WHERE l.oid = t.typcollation) END,
                   CASE WHEN t.typnotnull THEN 'not null' END,
                   'default ' || t.typdefault,
                   (SELECT string_agg(format('constraint %I %s', o.conname, pg_get_constraintdef(o.oid)), ' '
                                      ORDER BY o.conname)
                      FROM pg_catalog.pg_constraint AS o
                     WHERE o.contypid = t.oid)
               ) END,
           'row of ' || (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                                                     CASE WHEN a.attcollation <> y.typcollation
                                                          THEN 'collate ' || a.attcollation::regcollation::text END),
                                           ', ' ORDER BY a.attnum)
                           FROM pg_catalog.pg_attribute AS a
                           JOIN pg_catalog.pg_type AS y ON y.oid = a.atttypid
                          WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT format('range of %s, canonical %s, difference %s', format_type(r.rngsubtype, NULL), r.rngcanonical,
                          r.rngsubdiff)
              FROM pg_catalog.pg_range AS r
             WHERE r.rngtypid = t.oid),
           CASE t.typtype WHEN 'b' THEN format('input %s output %s length %s', t.typinput, t.typoutput, t.typlen) END
       ) AS definition
  FROM pg_catalog.pg_type AS t
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
  JOIN (VALUES ('b'::"char", 'type'), ('c', 'type'), ('e', 'type'), ('r', 'type'), ('d', 'domain')) AS k(typtype, kind)
       ON k.typtype = t.typtype
  LEFT JOIN pg_catalog.pg_type AS b ON b.oid = t.typbasetype
 WHERE n.nspname NOT LIKE 'pg\_%'
   AND n.nspname NOT IN ('information_schema', 'dbwatch')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type AS e WHERE e.typarray = t.oid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.typrelid AND c.relkind <> 'c')
   AND NOT EXISTS (SELECT
                     FROM pg_catalog.pg_depend AS d
                    WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
