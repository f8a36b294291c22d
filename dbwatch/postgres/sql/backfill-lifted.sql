-- dbwatch backfill: a person let it go on at its own screen, so this order does not stand any more. Nothing where another
-- came meanwhile.
UPDATE dbwatch.backfill AS b
SET ordered = NULL, heeded = false
WHERE b.id = %(id)s AND b.epoch = %(epoch)s AND b.ordered = %(ordered)s
