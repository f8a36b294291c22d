-- dbwatch backfill: brings one batch of before-images back, in one message. Images are used up in the transaction that
-- brings their rows back, and so are those of rows that are as they were already (brought back by hand). Of a row that
-- somebody else changed since, or that is gone, the image stays; so it does where a trigger changed what was brought
-- back. The compare-and-set is as in backfill-batch.sql.
BEGIN /* one batch of before-images brought back */ ISOLATION LEVEL READ COMMITTED READ WRITE;
{settings};
SELECT /* dbwatch */ clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0');
WITH /* dbwatch */ restored AS (
{restore}
),
seen AS MATERIALIZED (
{seen}
),
consumed AS (
    DELETE FROM {images} AS i
    WHERE {range} AND ({keys}) IN (
        SELECT {keys} FROM restored WHERE back
        UNION ALL
        SELECT {keys} FROM seen WHERE as_before
    )
    RETURNING 1
),
counted AS (
    SELECT count(*) AS images, count(*) FILTER (WHERE there) AS there
    FROM seen
),
moved AS (
    UPDATE dbwatch.backfill AS b
    SET
        back = %(next)s,
        restored = b.restored + (SELECT count(*) FROM consumed),
        changed = b.changed + c.there - (SELECT count(*) FROM consumed),
        missing = b.missing + c.images - c.there,
        batches = b.batches + 1,
        beat_at = clock_timestamp()
    FROM counted AS c
    WHERE
        b.id = %(id)s AND b.epoch = %(epoch)s
        AND b.batches = %(batches)s AND b.back IS NOT DISTINCT FROM %(cursor)s
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM consumed),
    (SELECT images FROM counted),
    CASE WHEN count(*) = 1 THEN true ELSE CAST('dbwatch: the cursor was moved by another, ' || count(*) AS boolean) END
FROM moved;
COMMIT;
SELECT /* dbwatch */ clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')
