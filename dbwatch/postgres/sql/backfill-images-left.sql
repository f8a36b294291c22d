-- Whether a table of before-images still holds some, and how large it is with its index; it takes ACCESS SHARE on it.
SELECT
    EXISTS (SELECT FROM {images}),
    pg_catalog.pg_total_relation_size({named}::regclass)::bigint;
