-- What is this server, and what may we do here? Touches no relation that DDL locks.
SELECT current_setting('server_version_num')::int,
       current_database()::text,
       (SELECT d.oid::bigint FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()),
       current_user::text,
       host(inet_server_addr()),
       pg_postmaster_start_time(),
       (SELECT system_identifier::text FROM pg_control_system()),
       clock_timestamp(),
       pg_is_in_recovery(),
       (SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings AS s WHERE s.name = 'default_transaction_read_only'),
       (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user),
       pg_has_role('pg_read_all_stats', 'USAGE'),
       pg_has_role('pg_signal_backend', 'USAGE'),
       has_database_privilege(current_database(), 'CREATE'),
       current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true), '0')::int,
       (SELECT n.nspname::text
          FROM pg_catalog.pg_extension AS e
          JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
         WHERE e.extname = 'pg_stat_statements'),
       pg_backend_pid()
