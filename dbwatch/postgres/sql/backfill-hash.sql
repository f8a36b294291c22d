-- What the backfill of one id does, as the hash by which it is claimed; nothing where there is none.
SELECT b.spec_hash
FROM dbwatch.backfill AS b
WHERE b.id = %(id)s;
