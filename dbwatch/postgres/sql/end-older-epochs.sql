-- Terminates the backends of a window's earlier epochs, found by application_name, as far as this role may signal them
-- (another role of the window ends its own); names all that are still there.
-- Chosen first and signalled after: in one WHERE the planner may call pg_terminate_backend before the other tests.
WITH named AS MATERIALIZED (
     SELECT a.pid,
            a.application_name,
            pg_has_role(a.usesysid, 'USAGE')
                OR pg_has_role('pg_signal_backend', 'USAGE') AND NOT coalesce(r.rolsuper, true) AS ours,
            split_part(split_part(a.application_name, ' ' || %(window)s, 2), ' ', 1) AS epoch
       FROM pg_catalog.pg_stat_activity AS a
       LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
      WHERE a.datname = current_database()
        AND a.application_name LIKE 'dbwatch %%'
        AND strpos(a.application_name, ' ' || %(window)s) > 0
        AND a.pid <> pg_backend_pid()
), older AS MATERIALIZED (
     SELECT n.pid, n.application_name, n.ours
       FROM named AS n
      WHERE CASE WHEN n.epoch ~ '^[0-9]{1,9}$' THEN n.epoch::int < %(epoch)s ELSE false END
)
SELECT o.pid, o.application_name, CASE WHEN o.ours THEN pg_terminate_backend(o.pid) END
  FROM older AS o
