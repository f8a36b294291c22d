-- dbwatch backfill: brings one batch of before-images back, in one message. Images are used up in the transaction that
-- brings their rows back; of a row that somebody else changed since, or that is gone, the image stays. `busy_s` is left
-- alone: it tells what the backfill itself took. The compare-and-set is as in backfill-batch.sql.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
{settings};
SELECT /* dbwatch */ clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0');
WITH /* dbwatch */ restored AS (
{restore}
),
consumed AS (
    DELETE FROM {images} AS i
    USING restored AS r
    WHERE {consumed}
    RETURNING 1
),
seen AS (
{seen}
),
moved AS (
    UPDATE dbwatch.backfill AS b
    SET
        back = %(next)s,
        restored = b.restored + (SELECT count(*) FROM consumed),
        changed = b.changed + seen.there - (SELECT count(*) FROM consumed),
        missing = b.missing + seen.images - seen.there,
        batches = b.batches + 1,
        beat_at = clock_timestamp()
    FROM seen
    WHERE
        b.id = %(id)s AND b.epoch = %(epoch)s
        AND b.batches = %(batches)s AND b.back IS NOT DISTINCT FROM %(cursor)s
    RETURNING seen.images
)
SELECT
    (SELECT count(*) FROM consumed),
    (SELECT images FROM seen),
    CASE WHEN count(*) = 1 THEN true ELSE CAST('dbwatch: the cursor was moved by another, ' || count(*) AS boolean) END
FROM moved;
COMMIT;
SELECT /* dbwatch */ clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')
