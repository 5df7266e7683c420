-- Touches that an application asks for within its own transaction: docs/decisions/0032-touches-from-sql.md. Whoever reconciles
-- views takes them, in order, and touches. `items` is a JSON array of texts; NULL for all of the view.
CREATE TABLE touch_requests (
    id        BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace TEXT   NOT NULL,
    key       TEXT   NOT NULL,
    items     TEXT
);

-- Touches views of a namespace in the caller's transaction: committed and rolled back with it. A key that no view has is an error. Without items all of
-- each view is touched. Answers how many views there were. Runs with the rights of the schema's owner, so that a role needs no other right than to
-- use the schema and execute this:
--     GRANT USAGE ON SCHEMA recache TO app;
--     GRANT EXECUTE ON FUNCTION recache.touch(TEXT, TEXT, TEXT[]), recache.touch_many(TEXT, TEXT[], TEXT[]),
--         recache.touch_matching(TEXT, TEXT, TEXT[]) TO app;
CREATE FUNCTION touch_many(namespace TEXT, keys TEXT[], items TEXT[] DEFAULT NULL) RETURNS BIGINT
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = recache, pg_temp AS $$
#variable_conflict use_column
DECLARE
    wanted TEXT[];
    missing TEXT;
    item TEXT;
BEGIN
    IF touch_many.namespace IS NULL OR array_position(touch_many.keys, NULL) IS NOT NULL
        OR array_position(touch_many.items, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'recache: namespace, keys and items must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF cardinality(touch_many.items) > 10000 THEN
        RAISE EXCEPTION 'recache: a touch may name at most 10000 items; without items all of a view is touched'
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    -- As every other touch is held: recache_store::Touch.
    FOREACH item IN ARRAY COALESCE(touch_many.items, '{}') LOOP
        IF octet_length(item) NOT BETWEEN 1 AND 1024 THEN
            RAISE EXCEPTION 'recache: an item must have 1 to 1024 bytes, and has %', octet_length(item)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END LOOP;
    SELECT array_agg(DISTINCT k.key ORDER BY k.key) INTO wanted FROM unnest(touch_many.keys) AS k (key);
    SELECT k.key INTO missing FROM unnest(wanted) AS k (key) WHERE NOT EXISTS (
        SELECT 1 FROM recache.views v WHERE v.namespace = touch_many.namespace AND v.key = k.key) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'recache: view %/% does not exist', touch_many.namespace, missing
            USING ERRCODE = 'no_data_found', HINT = 'define it first: recache view define';
    END IF;
    INSERT INTO recache.touch_requests (namespace, key, items)
        SELECT touch_many.namespace, k.key,
            CASE WHEN cardinality(touch_many.items) > 0 THEN array_to_json(touch_many.items)::text END
        FROM unnest(wanted) AS k (key);
    -- As the processes tell each other; see src/signal.rs. It is sent by the commit, once however many touches there were.
    IF cardinality(wanted) > 0 THEN
        PERFORM pg_notify('recache', '{"from":"00000000-0000-0000-0000-000000000000","t":true}');
    END IF;
    RETURN COALESCE(cardinality(wanted), 0);
END
$$;

-- The same for one view.
CREATE FUNCTION touch(namespace TEXT, key TEXT, items TEXT[] DEFAULT NULL) RETURNS VOID
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = recache, pg_temp AS $$
    SELECT recache.touch_many($1, ARRAY[$2], $3)
$$;

-- The same for all views whose key matches a pattern: `*` stands for any text, all else for itself. Answers how many there were, which may be none.
CREATE FUNCTION touch_matching(namespace TEXT, pattern TEXT, items TEXT[] DEFAULT NULL) RETURNS BIGINT
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = recache, pg_temp SET standard_conforming_strings = on AS $$
    SELECT recache.touch_many($1, ARRAY(SELECT v.key FROM recache.views v WHERE v.namespace = $1
        AND v.key LIKE replace(replace(replace(replace($2, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')), $3)
$$;

REVOKE ALL ON FUNCTION touch(TEXT, TEXT, TEXT[]), touch_many(TEXT, TEXT[], TEXT[]), touch_matching(TEXT, TEXT, TEXT[])
    FROM PUBLIC;
