-- All below `next` is filled: the cursor follows those who filled it side by side. Nothing where it is no longer ours, or
-- the cursor is not where it was.
UPDATE dbwatch.backfill AS b
SET
    cursor = %(next)s,
    scanned = b.scanned + %(scanned)s,
    beat_at = clock_timestamp()
WHERE
    b.id = %(id)s AND b.epoch = %(epoch)s
    AND b.cursor IS NOT DISTINCT FROM %(cursor)s::text;
