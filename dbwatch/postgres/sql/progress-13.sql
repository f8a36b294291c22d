-- dbwatch monitor: which commands in this database report progress, and how far are they? Base backups are the
-- server's. Names come from pg_class; a row that privileges hide has its pid only.
SELECT p.pid, p.command, coalesce(r.relname, ''), p.phase, coalesce(p.done, 0), coalesce(p.total, 0),
       coalesce(i.relname, ''), nullif(p.waits_for, 0)
  FROM (
      SELECT s.pid, s.datname, s.command, s.relid, s.phase,
             CASE
                 WHEN starts_with(s.phase, 'waiting') THEN s.lockers_done
                 WHEN s.tuples_total > 0 AND s.phase = 'building index: loading tuples in tree' THEN s.tuples_done
                 ELSE s.blocks_done
             END AS done,
             CASE
                 WHEN starts_with(s.phase, 'waiting') THEN s.lockers_total
                 WHEN s.tuples_total > 0 AND s.phase = 'building index: loading tuples in tree' THEN s.tuples_total
                 ELSE s.blocks_total
             END AS total,
             s.index_relid, s.current_locker_pid AS waits_for
        FROM pg_catalog.pg_stat_progress_create_index AS s
       UNION ALL
      SELECT s.pid, s.datname, 'VACUUM', s.relid, s.phase,
             CASE
                 WHEN s.phase = 'vacuuming heap' THEN s.heap_blks_vacuumed
                 ELSE s.heap_blks_scanned
             END,
             s.heap_blks_total,
             NULL, NULL
        FROM pg_catalog.pg_stat_progress_vacuum AS s
       UNION ALL
      SELECT s.pid, s.datname, 'ANALYZE', s.relid, s.phase, s.sample_blks_scanned, s.sample_blks_total, NULL, NULL
        FROM pg_catalog.pg_stat_progress_analyze AS s
       UNION ALL
      SELECT s.pid, s.datname, s.command, s.relid, s.phase, s.heap_blks_scanned, s.heap_blks_total,
             s.cluster_index_relid, NULL
        FROM pg_catalog.pg_stat_progress_cluster AS s
       UNION ALL
      SELECT s.pid, current_database(), 'BASE BACKUP', NULL, s.phase, s.backup_streamed, s.backup_total, NULL, NULL
        FROM pg_catalog.pg_stat_progress_basebackup AS s
  ) AS p
  LEFT JOIN pg_catalog.pg_class AS r ON r.oid = p.relid
  LEFT JOIN pg_catalog.pg_class AS i ON i.oid = p.index_relid
 WHERE p.datname = current_database()
 ORDER BY p.pid
 LIMIT 200
