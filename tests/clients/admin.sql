-- What the tests do as the database's superuser.

CREATE SCHEMA admin;

-- Keys are not fetched again within 30 seconds. This is a minute later.
CREATE FUNCTION admin.a_minute_later() RETURNS void LANGUAGE sql AS $$
    UPDATE auth.provider_keys
    SET fetched_at = fetched_at - interval '1 minute',
        checked_at = checked_at - interval '1 minute',
        next_at = next_at - interval '1 minute'
$$;

-- Cancels pg_sleep() in this backend, as soon as it is there. Not by the driver: PgBouncer 1.18 may die of a
-- request to cancel (its issues 801 and 822).
CREATE FUNCTION admin.wake(backend int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..500 LOOP
        PERFORM pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = backend AND wait_event = 'PgSleep';
        EXIT WHEN FOUND;
        PERFORM pg_stat_clear_snapshot(), pg_sleep(0.01);
    END LOOP;
END
$$;
