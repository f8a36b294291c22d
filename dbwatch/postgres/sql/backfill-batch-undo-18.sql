-- dbwatch backfill: one batch as in backfill-batch.sql, which also keeps what it overwrites: RETURNING tells the row
-- that was replaced and the one that replaced it, from 18 on.
BEGIN /* one batch of a backfill */ ISOLATION LEVEL READ COMMITTED READ WRITE;
{settings},
    clock_timestamp(),
    pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'),
    pg_stat_get_xact_tuples_updated(CAST({relation} AS regclass)),
    pg_stat_get_xact_tuples_hot_updated(CAST({relation} AS regclass));
{beforehand}WITH /* dbwatch */ filled AS (
{update}
{returning}
),
kept AS (
{keep}
),
counted AS (SELECT count(*) AS filled FROM filled),
moved AS (
    UPDATE dbwatch.backfill AS b
    SET
        cursor = {next},
        rows_done = b.rows_done + (SELECT filled FROM counted),
        scanned = b.scanned + %(scanned)s,
        batches = b.batches + 1,
        busy_s = b.busy_s + extract(EPOCH FROM clock_timestamp() - greatest(b.beat_at, now() - INTERVAL '1 s')),
        beat_at = clock_timestamp()
    WHERE
        b.id = %(id)s AND b.epoch = %(epoch)s
        AND {stands}
    RETURNING 1
)
SELECT
    (SELECT filled FROM counted),
    pg_stat_get_xact_tuples_updated(CAST({relation} AS regclass)),
    pg_stat_get_xact_tuples_hot_updated(CAST({relation} AS regclass)),
    CASE WHEN count(*) = 1 THEN true ELSE CAST('dbwatch: the cursor was moved by another, ' || count(*) AS boolean) END
FROM moved;
COMMIT
