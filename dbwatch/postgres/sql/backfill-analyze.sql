-- dbwatch backfill: is an ANALYZE of the table under way? Reads shared memory only; without pg_read_all_stats the server
-- does not tell of which table another session's is.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_stat_get_progress_info('ANALYZE') AS p WHERE p.relid = pg_catalog.to_regclass({relation})
);
