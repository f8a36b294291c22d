-- How many of these sessions are still in the transaction that was in our way. A failed one holds its locks no longer.
SELECT count(*)
  FROM unnest(%(pids)s::integer[], %(starts)s::timestamptz[]) AS seen (pid, xact_start)
  JOIN pg_catalog.pg_stat_activity AS a ON a.pid = seen.pid AND a.xact_start IS NOT DISTINCT FROM seen.xact_start
 WHERE a.state IS DISTINCT FROM 'idle in transaction (aborted)'
