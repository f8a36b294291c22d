-- dbwatch backfill: what was ordered from another terminal, and whether its worker took notice. No row: somebody took
-- over, which the next batch finds out.
SELECT b.ordered, b.heeded
FROM dbwatch.backfill AS b
WHERE b.id = %(id)s AND b.epoch = %(epoch)s
