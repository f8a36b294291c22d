-- How does a certified backfill stand now, and how many rows does it still hold in quarantine?
SELECT
    b.status,
    (
        SELECT count(*) FROM dbwatch.quarantine AS q
        WHERE q.backfill_id = b.id
    )
FROM dbwatch.backfill AS b
WHERE b.id = %(id)s
