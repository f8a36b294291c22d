-- dbwatch backfill: how many checkpoints were requested, how many deadlocks and conflicts with replay found? Counters.
SELECT
    pg_catalog.pg_stat_get_checkpointer_num_requested()::bigint,
    pg_catalog.pg_stat_get_db_deadlocks(a.datid)::bigint,
    pg_catalog.pg_stat_get_db_conflict_all(a.datid)::bigint
FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) AS a;
