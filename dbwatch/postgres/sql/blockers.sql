-- dbwatch monitor: whom exactly do these few sessions wait for? Takes the lock manager's partition locks for each.
SELECT w.pid, pg_blocking_pids(w.pid) FROM unnest(%(pids)s::int[]) AS w (pid)
