-- JSON Schemas that the keys and values of a view's items must fit.
ALTER TABLE views ADD COLUMN item_key_schema TEXT;
ALTER TABLE views ADD COLUMN item_value_schema TEXT;
-- The pattern that the view was made from; NULL for one that was defined by name.
ALTER TABLE views ADD COLUMN pattern TEXT;
CREATE INDEX views_by_pattern ON views (namespace, pattern) WHERE pattern IS NOT NULL;

-- Definitions that cover every view whose key matches: the first touch of such a view makes it.
CREATE TABLE view_patterns (
    namespace         TEXT    NOT NULL,
    pattern           TEXT    NOT NULL,
    handler           TEXT    NOT NULL,
    queue             TEXT    NOT NULL,
    policy            TEXT    NOT NULL,
    retry             TEXT    NOT NULL,
    timeout_ms        BIGINT,
    item_key_schema   TEXT,
    item_value_schema TEXT,
    created_at        BIGINT NOT NULL,
    PRIMARY KEY (namespace, pattern)
);

-- As before (0015), but a view that is not there yet may be touched where a pattern covers it.
CREATE OR REPLACE FUNCTION touch_many(namespace TEXT, keys TEXT[], items TEXT[] DEFAULT NULL) RETURNS BIGINT
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = recache, pg_temp SET standard_conforming_strings = on AS $$
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
        SELECT 1 FROM recache.views v WHERE v.namespace = touch_many.namespace AND v.key = k.key)
        AND NOT (octet_length(k.key) BETWEEN 1 AND 1024 AND k.key !~ '[[:cntrl:]*]' AND EXISTS (
        SELECT 1 FROM recache.view_patterns p WHERE p.namespace = touch_many.namespace
        AND k.key LIKE replace(replace(replace(replace(p.pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%'))) LIMIT 1;
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
