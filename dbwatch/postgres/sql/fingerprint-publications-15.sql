-- Publications, their schemas, their tables with columns and filters. A filter waits for ACCESS EXCLUSIVE on its table.
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
           (SELECT string_agg(format('tables in schema %I', n.nspname), E'\n' ORDER BY n.nspname)
              FROM pg_catalog.pg_publication_namespace AS r
              JOIN pg_catalog.pg_namespace AS n ON n.oid = r.pnnspid
             WHERE r.pnpubid = p.oid),
           (SELECT string_agg(
                       concat_ws(
                           ' ',
                           format('table %I.%I', n.nspname, c.relname),
                           format('(%s)', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname)
                                             FROM pg_catalog.pg_attribute AS a
                                            WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])
                                           HAVING count(*) > 0)),
                           'where ' || pg_get_expr(r.prqual, r.prrelid)
                       ),
                       E'\n' ORDER BY n.nspname, c.relname)
              FROM pg_catalog.pg_publication_rel AS r
              JOIN pg_catalog.pg_class AS c ON c.oid = r.prrelid
              JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             WHERE r.prpubid = p.oid)
       ) AS definition
  FROM pg_catalog.pg_publication AS p
