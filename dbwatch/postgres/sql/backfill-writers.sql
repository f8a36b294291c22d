-- Who else may write the journal's backfills: whoever may take one over has to reach its before-images too.
SELECT r.rolname::text
FROM pg_catalog.pg_class AS c
CROSS JOIN pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS a
INNER JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
WHERE
    c.oid = 'dbwatch.backfill'::regclass
    AND a.privilege_type = 'UPDATE'
    AND r.rolname <> current_user;
