-- What the backfill of one id does, and the hash of that; nothing where there is none.
SELECT
    b.spec,
    b.spec_hash
FROM dbwatch.backfill AS b
WHERE b.id = %(id)s;
