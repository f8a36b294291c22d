-- Who keeps a backend of ours waiting now: each with its start and its transaction's. Touches no relation.
SELECT b.pid,
       a.backend_start,
       a.xact_start,
       coalesce(nullif(a.application_name, ''), a.usename::text, a.backend_type, '') AS who,
       coalesce(a.state, '') AS state,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS age_s,
       coalesce(a.query, '') AS query
  FROM unnest(pg_catalog.pg_blocking_pids(%(pid)s)) AS b (pid)
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = b.pid
