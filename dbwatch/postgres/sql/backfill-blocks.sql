-- dbwatch backfill: how many pages has the table's heap, and which transaction will be the next one?
SELECT
    pg_relation_size(CAST({relation} AS regclass)) / current_setting('block_size')::bigint,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint
