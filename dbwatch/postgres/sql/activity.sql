-- dbwatch monitor: who is connected, and what is each session doing? Reads shared memory only, no catalogue: a lock
-- on pg_database or pg_authid stops the view pg_stat_activity, not this. The polling session itself is left out.
SELECT a.pid,
       a.backend_start,
       a.leader_pid,
       a.datid::bigint,
       a.usesysid::bigint,
       a.application_name,
       host(a.client_addr),
       a.client_port,
       a.backend_type,
       a.state,
       a.wait_event_type,
       a.wait_event,
       a.xact_start,
       a.query_start,
       a.state_change,
       age(a.backend_xmin),
       CASE WHEN octet_length(a.query) > 20000 THEN left(a.query, 20001) ELSE a.query END,
       a.state IS NULL AND a.query = '<insufficient privilege>' AS hidden,
       count(*) OVER () AS total
  FROM pg_stat_get_activity(NULL) AS a
 WHERE (a.datid IS NOT NULL OR a.backend_type = 'walsender')
   AND a.pid <> pg_backend_pid()
 ORDER BY a.state IS DISTINCT FROM 'idle' DESC, a.xact_start, a.pid
 LIMIT 1000
