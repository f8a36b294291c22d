-- Where a backfill keeps its before-images.
UPDATE dbwatch.backfill AS b
SET images = %(images)s
WHERE b.id = %(id)s;
