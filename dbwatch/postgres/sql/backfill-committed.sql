-- dbwatch backfill: when the last batch of a message was committed, how far the WAL is since, and whether an ANALYZE of
-- the table is under way. Without pg_read_all_stats the server does not tell of which table another session's is.
SELECT /* dbwatch */
    clock_timestamp(),
    pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'),
    EXISTS (
        SELECT FROM pg_catalog.pg_stat_get_progress_info('ANALYZE') AS p WHERE p.relid = pg_catalog.to_regclass({relation})
    )
