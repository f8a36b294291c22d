-- dbwatch backfill: its worker took notice of this order. Nothing where another came meanwhile.
UPDATE dbwatch.backfill AS b
SET heeded = true
WHERE b.id = %(id)s AND b.epoch = %(epoch)s AND b.ordered = %(ordered)s
