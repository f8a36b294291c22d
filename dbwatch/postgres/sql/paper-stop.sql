-- For rollback.sql: ends every session of dbwatch in this database.
SELECT pg_terminate_backend(pid), application_name, query
  FROM pg_stat_activity
 WHERE datname = current_database()
   AND application_name LIKE 'dbwatch %'
   AND pid <> pg_backend_pid();
