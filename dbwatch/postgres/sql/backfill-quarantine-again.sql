-- Why a row in quarantine could not take its value when it was tried again.
UPDATE dbwatch.quarantine AS q
SET
    sqlstate = %(sqlstate)s,
    message = %(message)s
WHERE q.backfill_id = %(id)s AND q.key = %(key)s;
