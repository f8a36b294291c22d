-- Who else may begin the journal's backfills and write them: whoever may take one over has to reach its before-images
-- too. UPDATE alone is what it takes to pause one.
SELECT r.rolname::text
FROM pg_catalog.pg_class AS c
CROSS JOIN pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) AS a
INNER JOIN pg_catalog.pg_roles AS r ON r.oid = a.grantee
WHERE
    c.oid = 'dbwatch.backfill'::regclass
    AND a.privilege_type IN ('INSERT', 'UPDATE')
    AND r.rolname <> current_user
GROUP BY r.rolname
HAVING count(DISTINCT a.privilege_type) = 2;
