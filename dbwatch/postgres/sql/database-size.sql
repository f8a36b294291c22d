-- dbwatch monitor: how large is this database? Looks at every file of it: asked rarely. Waits for no lock.
SELECT pg_database_size(%(database)s::bigint::oid)
