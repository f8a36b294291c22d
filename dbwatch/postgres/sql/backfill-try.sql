-- dbwatch backfill: one batch, carried out and rolled back. Deferred constraints are checked as a COMMIT would.
BEGIN /* one batch of a backfill, rolled back */ ISOLATION LEVEL READ COMMITTED READ WRITE;
{settings};
SELECT /* dbwatch */
    pg_stat_get_xact_tuples_updated(CAST({relation} AS regclass)),
    pg_stat_get_xact_tuples_hot_updated(CAST({relation} AS regclass));
EXPLAIN /* dbwatch */ (ANALYZE, BUFFERS, WAL, FORMAT JSON)
{update};
SET CONSTRAINTS ALL IMMEDIATE;
SELECT /* dbwatch */
    pg_stat_get_xact_tuples_updated(CAST({relation} AS regclass)),
    pg_stat_get_xact_tuples_hot_updated(CAST({relation} AS regclass));
ROLLBACK
