-- dbwatch backfill: one batch, in one message, so that no client work lies between the UPDATE and the COMMIT and the
-- server's own clock times both. The compare-and-set of the cursor is the last write; where it changes no row, because
-- somebody took over or an answer was lost, the cast fails and the whole batch is rolled back.
BEGIN /* one batch of a backfill */ ISOLATION LEVEL READ COMMITTED READ WRITE;
{settings},
    clock_timestamp(),
    pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'),
    pg_stat_get_xact_tuples_updated(CAST({relation} AS regclass)),
    pg_stat_get_xact_tuples_hot_updated(CAST({relation} AS regclass));
{beforehand}WITH /* dbwatch */ filled AS (
{update}
RETURNING 1
),
counted AS (SELECT count(*) AS filled FROM filled),
moved AS (
    UPDATE dbwatch.backfill AS b
    SET
        cursor = {next},
        rows_done = b.rows_done + (SELECT filled FROM counted),
        scanned = b.scanned + %(scanned)s,
        batches = b.batches + 1,
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
