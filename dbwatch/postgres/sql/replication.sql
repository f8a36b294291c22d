-- dbwatch monitor: which standbys and receivers follow this server, and how far behind are they? Reads shared
-- memory only.
SELECT w.pid,
       a.application_name,
       host(a.client_addr),
       w.state,
       w.sync_state,
       extract(epoch FROM w.replay_lag)::float8,
       pg_wal_lsn_diff(
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, w.replay_lsn
       )::bigint
  FROM pg_stat_get_wal_senders() AS w
  JOIN pg_stat_get_activity(NULL) AS a ON a.pid = w.pid
 ORDER BY w.pid
 LIMIT 100
