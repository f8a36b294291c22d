-- dbwatch monitor: what are these roles and databases called? Asked once for each; pg_database or pg_authid may be
-- locked, then numbers stand for names.
SELECT 'role', r.oid::bigint, r.rolname::text
  FROM pg_catalog.pg_roles AS r
 WHERE r.oid = ANY (%(roles)s::bigint[]::oid[])
 UNION ALL
SELECT 'database', d.oid::bigint, d.datname::text
  FROM pg_catalog.pg_database AS d
 WHERE d.oid = ANY (%(databases)s::bigint[]::oid[])
