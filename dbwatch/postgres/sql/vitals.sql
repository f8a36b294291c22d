-- dbwatch monitor: how busy is the server, and how far have its counters come? Reads shared memory only. Sessions
-- that privileges hide count as connections; whether they wait is then taken from pg_locks, which hides nothing.
SELECT clock_timestamp(),
       count(*) FILTER (WHERE a.client),
       count(*) FILTER (WHERE a.client AND a.state = 'active' AND a.pid <> pg_backend_pid()),
       CASE
           WHEN bool_or(a.hidden) THEN
               (SELECT count(DISTINCT l.pid) FROM pg_catalog.pg_locks AS l WHERE NOT l.granted)
           ELSE count(*) FILTER (WHERE a.client AND a.wait_event_type = 'Lock')
       END,
       pg_stat_get_db_xact_commit(%(database)s::bigint::oid),
       pg_stat_get_db_xact_rollback(%(database)s::bigint::oid),
       CASE
           WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')
           ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
       END::bigint,
       pg_stat_get_db_deadlocks(%(database)s::bigint::oid),
       pg_stat_get_db_temp_bytes(%(database)s::bigint::oid),
       extract(epoch FROM clock_timestamp() - least(
           min(a.xact_start) FILTER (WHERE a.holds_xmin AND a.pid <> pg_backend_pid()),
           (SELECT min(p.prepared) FROM pg_prepared_xact() AS p)
       ))::float8,
       extract(epoch FROM clock_timestamp() - min(a.xact_start) FILTER (
           WHERE a.client AND a.pid <> pg_backend_pid()
       ))::float8,
       count(*) FILTER (WHERE a.client AND a.hidden)
  FROM (
      SELECT s.pid, s.state, s.wait_event_type, s.xact_start,
             s.state IS NULL AND s.query = '<insufficient privilege>' AS hidden,
             s.backend_type = 'client backend'
                 OR (s.backend_type IS NULL AND s.datid IS NOT NULL AND s.usesysid IS NOT NULL) AS client,
             (s.backend_xmin IS NOT NULL OR s.backend_xid IS NOT NULL)
                 AND s.backend_type <> 'autovacuum worker' AS holds_xmin
        FROM pg_stat_get_activity(NULL) AS s
  ) AS a
