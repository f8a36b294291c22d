-- Ends a session, or only its query, if it is still the one that was shown: checked and done in one statement.
-- Reads shared memory only. No row: the session is gone. `sent` is NULL where nothing was done.
SELECT a.backend_start,
       CASE
           WHEN a.backend_start IS DISTINCT FROM %(backend_start)s THEN NULL
           WHEN %(query_start)s::timestamptz IS NOT NULL AND a.query_start IS DISTINCT FROM %(query_start)s THEN NULL
           WHEN %(terminate)s THEN pg_terminate_backend(a.pid)
           ELSE pg_cancel_backend(a.pid)
       END AS sent
  FROM pg_stat_get_activity(%(pid)s) AS a
