-- dbwatch backfill: what became of an order: the backfill's status, the order that stands, and whether its worker took
-- notice of that.
SELECT b.status, b.ordered, b.heeded
FROM dbwatch.backfill AS b
WHERE b.id = %(id)s
