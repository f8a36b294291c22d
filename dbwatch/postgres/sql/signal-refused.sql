-- Why may we not signal this session? Whose it is, what it is, and who we are.
SELECT current_user::text,
       pg_has_role('pg_signal_backend', 'USAGE'),
       r.rolname::text,
       coalesce(r.rolsuper, false)
  FROM (SELECT) AS here
  LEFT JOIN pg_stat_get_activity(%(pid)s) AS a ON true
  LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
