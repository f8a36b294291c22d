-- Who holds or awaits a lock on a relation that stands in the way of reading or updating it; reads pg_locks only.
SELECT
    l.pid,
    coalesce(a.application_name, '') AS application,
    l.mode,
    l.granted
FROM pg_catalog.pg_locks AS l
LEFT JOIN pg_catalog.pg_stat_get_activity(l.pid) AS a ON true
WHERE
    l.locktype = 'relation'
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = current_database())
    AND l.relation = %(oid)s::oid AND l.pid <> pg_catalog.pg_backend_pid()
    AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
ORDER BY l.granted DESC, l.pid
LIMIT 5;
