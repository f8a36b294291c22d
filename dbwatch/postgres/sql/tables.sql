-- dbwatch monitor: how large, how dead and how old are the tables? Size by relpages, with TOAST, without indexes:
-- pg_table_size would wait behind ACCESS EXCLUSIVE. The largest come first.
SELECT x.relid::bigint,
       x.nspname,
       x.relname,
       x.pages * current_setting('block_size')::bigint,
       pg_stat_get_live_tuples(x.relid),
       pg_stat_get_dead_tuples(x.relid),
       pg_stat_get_tuples_updated(x.relid),
       pg_stat_get_tuples_hot_updated(x.relid),
       greatest(pg_stat_get_last_vacuum_time(x.relid), pg_stat_get_last_autovacuum_time(x.relid)),
       greatest(pg_stat_get_last_analyze_time(x.relid), pg_stat_get_last_autoanalyze_time(x.relid)),
       x.freeze_age,
       x.total
  FROM (
      SELECT c.oid AS relid, n.nspname::text, c.relname::text, age(c.relfrozenxid) AS freeze_age,
             c.relpages::bigint + coalesce(t.relpages, 0) AS pages, count(*) OVER () AS total
        FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_class AS t ON t.oid = c.reltoastrelid
       WHERE c.relkind IN ('r', 'm')
         AND n.nspname <> 'information_schema'
         AND NOT starts_with(n.nspname, 'pg_')
       ORDER BY pages DESC, c.oid
       LIMIT 1000
  ) AS x
 ORDER BY x.pages DESC, x.relid
