-- dbwatch monitor: which indexes are used, and which are invalid? Size by relpages: pg_relation_size would wait
-- behind ACCESS EXCLUSIVE. The invalid ones come first, then the largest. The scans count since no later than the last
-- reset of this database's statistics, or, where there was none since a crash discarded them all, of the server's.
SELECT x.indexrelid::bigint,
       x.nspname,
       x.relname,
       x.indexrelname,
       pg_stat_get_numscans(x.indexrelid),
       NULL::timestamptz,
       x.relpages * current_setting('block_size')::bigint,
       x.indisvalid,
       x.indisready,
       x.indisunique,
       x.indisprimary,
       (SELECT coalesce(
           pg_stat_get_db_stat_reset_time(%(database)s::bigint::oid),
           least(
               pg_stat_get_bgwriter_stat_reset_time(),
               (SELECT w.stats_reset FROM pg_stat_get_archiver() AS w)
           )
       )),
       x.total
  FROM (
      SELECT i.indexrelid, n.nspname::text, t.relname::text, c.relname::text AS indexrelname, c.relpages,
             i.indisvalid, i.indisready, i.indisunique, i.indisprimary, count(*) OVER () AS total
        FROM pg_catalog.pg_index AS i
        JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
        JOIN pg_catalog.pg_class AS t ON t.oid = i.indrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
       WHERE c.relkind = 'i'
         AND n.nspname <> 'information_schema'
         AND NOT starts_with(n.nspname, 'pg_')
       ORDER BY i.indisvalid, c.relpages DESC, c.oid
       LIMIT 1000
  ) AS x
 ORDER BY x.indisvalid, x.relpages DESC, x.indexrelid
