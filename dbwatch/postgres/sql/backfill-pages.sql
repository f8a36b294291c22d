-- dbwatch backfill: how many pages the heap of a table has now. Waits for a lock as the batch itself does.
SELECT /* dbwatch */ pg_catalog.pg_relation_size(CAST({relation} AS regclass)) / current_setting('block_size')::bigint
