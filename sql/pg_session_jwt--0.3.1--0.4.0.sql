-- What 0.4.0 added to 0.3.1, where it is missing: in a database that still has what 0.3.1 itself made.
-- Nothing else changes.

SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

DO $missing$
DECLARE
    function record;
    given aclitem[];
    owner name;
    holder name;
BEGIN
    FOR function IN
        SELECT * FROM (VALUES
            ('auth.jwt()', 'jsonb', 'jwt_wrapper'),
            ('auth.uid()', 'uuid', 'uid_wrapper')
        ) AS f (name, result, symbol)
        WHERE pg_catalog.to_regprocedure(name) IS NULL
    LOOP
        EXECUTE pg_catalog.format(
            'CREATE FUNCTION %s RETURNS %s STABLE PARALLEL SAFE LANGUAGE c AS %L, %L',
            function.name, function.result, 'MODULE_PATHNAME', function.symbol);
        -- For PUBLIC, whatever ALTER DEFAULT PRIVILEGES says.
        SELECT proacl, pg_catalog.pg_get_userbyid(proowner) INTO STRICT given, owner
        FROM pg_catalog.pg_proc WHERE oid = pg_catalog.to_regprocedure(function.name);
        CONTINUE WHEN given IS NULL;
        FOR holder IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'public'
                ELSE pg_catalog.pg_get_userbyid(grantee) END
            FROM pg_catalog.aclexplode(given)
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %I', function.name, holder);
        END LOOP;
        EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC, %I',
            function.name, owner);
    END LOOP;
END
$missing$;
