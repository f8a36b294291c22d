-- Terminates the backends of a window's earlier epochs, found by application_name; names those that are still there.
SELECT a.pid, a.application_name
  FROM pg_catalog.pg_stat_activity AS a
 CROSS JOIN LATERAL (
       SELECT split_part(split_part(a.application_name, %(window)s::text, 2), ' ', 1) AS epoch) AS e
 WHERE a.datname = current_database()
   AND a.application_name LIKE 'dbwatch %%'
   AND strpos(a.application_name, ' ' || %(window)s) > 0
   AND e.epoch ~ '^[0-9]+$'
   AND e.epoch::int < %(epoch)s
   AND a.pid <> pg_backend_pid()
   AND pg_terminate_backend(a.pid) IS NOT NULL
