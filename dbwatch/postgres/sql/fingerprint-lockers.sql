-- Who holds or waits for ACCESS EXCLUSIVE on a relation of this database: holders first, then the longest waiting.
SELECT l.relation::regclass::text,
       l.pid,
       coalesce(a.application_name, ''),
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8
  FROM pg_catalog.pg_locks AS l
  JOIN pg_stat_get_activity(NULL) AS a ON a.pid = l.pid
 WHERE l.locktype = 'relation'
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
   AND l.mode = 'AccessExclusiveLock'
   AND l.pid <> pg_backend_pid()
   AND l.relation >= 16384
 ORDER BY l.granted DESC, a.xact_start NULLS LAST
 LIMIT 1
