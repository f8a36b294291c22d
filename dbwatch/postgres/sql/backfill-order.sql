-- dbwatch backfill: gives an order from another terminal; its text. No row where the backfill is in no state to take it,
-- or stands as ordered already. Waits at most for the batch that is just moving the cursor.
UPDATE dbwatch.backfill AS b
SET
    ordered = json_build_object(
        'act', %(act)s::text,
        'by', %(by)s::text,
        'at', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'why', %(why)s::text
    )::text,
    heeded = false
WHERE
    b.id = %(id)s AND b.status = ANY(%(states)s::text[])
    AND coalesce(b.ordered::json ->> 'act' = 'pause', false) <> (%(act)s::text = 'pause')
RETURNING b.ordered
