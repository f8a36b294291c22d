-- dbwatch monitor: which statements cost most in this database? Figures only: with false, pg_stat_statements does
-- not read its file of texts (statement-texts.sql does, for those not yet known).
SELECT s.userid::bigint,
       s.dbid::bigint,
       s.queryid,
       true,
       s.calls,
       s.total_exec_time,
       s.rows,
       s.temp_blks_written,
       s.wal_bytes::bigint,
       NULL::timestamptz,
       count(*) FILTER (WHERE s.queryid IS NULL) OVER () AS hidden,
       count(*) OVER () AS total
  FROM {schema}.pg_stat_statements(false) AS s
 WHERE s.dbid = %(database)s::bigint::oid
 ORDER BY s.queryid IS NULL, s.total_exec_time DESC
 LIMIT 500
