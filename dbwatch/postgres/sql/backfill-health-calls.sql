-- dbwatch backfill: how often were the statements of this database called, and how long did that take? Figures only,
-- of the 500 most called: with false, pg_stat_statements does not read its file of texts.
SELECT s.queryid, sum(s.calls)::bigint AS calls, sum(s.total_exec_time)::float8
FROM {schema}.pg_stat_statements(false) AS s
WHERE
    s.queryid IS NOT NULL
    AND s.dbid = (SELECT a.datid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a)
GROUP BY s.queryid
ORDER BY calls DESC
LIMIT 500
