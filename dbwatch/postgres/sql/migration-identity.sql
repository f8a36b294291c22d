-- Which backend and which database did env.py reach? The started_at tells a copy of a cluster from the original.
SELECT pg_backend_pid(),
       (SELECT to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
          FROM pg_stat_get_activity(pg_backend_pid()) AS a),
       current_setting('server_version_num')::int,
       (SELECT s.system_identifier::text FROM pg_control_system() AS s),
       (SELECT d.oid::bigint FROM pg_catalog.pg_database AS d WHERE d.datname = current_database()),
       to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
       current_database()::text
