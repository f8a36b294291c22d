-- Publications and their tables. Touches no relation that DDL locks.
SELECT format('publication %I', p.pubname) AS key,
       'publication' AS kind,
       '' AS schema,
       p.pubname::text AS name,
       '' AS parent,
       '' AS within,
       p.oid::bigint AS oid,
       concat_ws(
           E'\n',
           'owner ' || pg_get_userbyid(p.pubowner),
           (to_jsonb(p) - '{oid,pubname,pubowner}'::text[])::text,
           (SELECT string_agg(format('table %I.%I', n.nspname, c.relname), E'\n' ORDER BY n.nspname, c.relname)
              FROM pg_catalog.pg_publication_rel AS r
              JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
              JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE r.prpubid = p.oid)
       ) AS definition
  FROM pg_catalog.pg_publication AS p
