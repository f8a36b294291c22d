-- What may our role do with the journal? Without its schema the owner is empty, and nothing may be done. Tables of
-- before-images stand in it, each made by the role that fills it: they are no part of it.
SELECT current_user::text AS "user",
       current_database()::text AS database,
       coalesce(t.there, false) AS there,
       coalesce(pg_get_userbyid(n.nspowner)::text, '') AS owner,
       coalesce(has_schema_privilege(n.oid, 'USAGE') AND t.readable, false) AS may_read,
       coalesce(has_schema_privilege(n.oid, 'USAGE') AND t.readable AND t.writable, false) AS may_write
  FROM (SELECT) AS here
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'dbwatch'
  LEFT JOIN LATERAL (
       SELECT bool_or(c.relname = 'window') AS there,
              bool_and(has_table_privilege(c.oid, 'SELECT')) AS readable,
              bool_and(has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE')) AS writable
         FROM pg_catalog.pg_class AS c
        WHERE c.relnamespace = n.oid
          AND c.relkind = 'r'
          AND c.relname !~ '^before_[0-9]+$'
       ) AS t ON true
