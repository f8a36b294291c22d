-- dbwatch backfill: when the last batch of a message was committed, and how far the WAL is since.
SELECT /* dbwatch */ clock_timestamp(), pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')
