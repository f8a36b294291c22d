-- dbwatch backfill: sets one row aside that cannot take its value, in the transaction that moves the cursor past it: it
-- is in quarantine, or still to be done, whatever becomes of us. The compare-and-set is as in backfill-batch.sql.
BEGIN /* one row of a backfill, set aside */ ISOLATION LEVEL READ COMMITTED READ WRITE;
{settings};
WITH /* dbwatch */ kept AS (
    INSERT INTO dbwatch.quarantine (backfill_id, key, sqlstate, message)
    VALUES (%(id)s, %(key)s, %(sqlstate)s, %(message)s)
    ON CONFLICT (backfill_id, key) DO UPDATE
    SET sqlstate = excluded.sqlstate, message = excluded.message
    RETURNING 1
),
moved AS (
    UPDATE dbwatch.backfill AS b
    SET
        cursor = %(next)s,
        scanned = b.scanned + %(scanned)s,
        batches = b.batches + 1,
        beat_at = clock_timestamp()
    WHERE
        b.id = %(id)s AND b.epoch = %(epoch)s
        AND b.batches = %(batches)s AND b.cursor IS NOT DISTINCT FROM %(cursor)s
    RETURNING 1
)
SELECT
    CASE WHEN count(*) = 1 THEN true ELSE CAST('dbwatch: the cursor was moved by another, ' || count(*) AS boolean) END
FROM moved;
COMMIT
