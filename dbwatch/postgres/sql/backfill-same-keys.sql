-- dbwatch backfill: of the rows in a range of keys that WHERE does not take (any more), how many are there, how many of
-- them were written since the run began, for how many does what has to hold not hold, and which are the first of those?
-- xmin is compared by age, which no freeze changes; one of two thousand million transactions ago would look new.
SELECT
    count(*),
    count(*) FILTER (WHERE r.differs),
    count(*) FILTER (WHERE r.differs AND r.young BETWEEN 0 AND (
        SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint - %(since)s
    )),
    (array_agg(r.key) FILTER (WHERE r.differs))[1:100]
FROM (
    SELECT
        ARRAY[{key}] AS key,
        ({same}) IS NOT TRUE AS differs,
        age(xmin) AS young
    FROM {table}
    WHERE
        {range}
        AND ({where}) IS NOT TRUE
) AS r
