-- Which entries of the caches are still reachable: docs/decisions/0007-epochs-instead-of-keys.md. One record for each
-- key prefix; an epoch is the version at which its slot was raised last. To make every entry under a prefix
-- unreachable, after a restore from a backup for instance, delete its record: the next one is another incarnation.
CREATE TABLE cache_record (
    prefix      TEXT   NOT NULL PRIMARY KEY,
    incarnation BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    CONSTRAINT cache_record_prefix_is_short CHECK (length(prefix) <= 200),
    CONSTRAINT cache_record_is_numbered CHECK (incarnation > 0 AND version > 0)
);

CREATE TABLE cache_epochs (
    prefix TEXT   NOT NULL REFERENCES cache_record (prefix) ON DELETE CASCADE,
    slot   BIGINT NOT NULL,
    epoch  BIGINT NOT NULL,
    PRIMARY KEY (prefix, slot),
    CONSTRAINT cache_epochs_slot_is_small CHECK (slot BETWEEN 0 AND 32767)
);

-- Makes what is cached in these slots unreachable, in the transaction of the change that outdates it: committed and
-- rolled back with it. Answers the record's new version. Call it last: until the commit, who raises under the same
-- prefix waits. The caller needs the right to write both tables. The numbers of the slots are those of
-- `recache_cache::epochs::Slot`; they depend on the prefix and never change.
CREATE FUNCTION cache_raise(prefix TEXT, slots SMALLINT[]) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    raised recache.cache_record;
BEGIN
    INSERT INTO recache.cache_record AS r (prefix, incarnation, version)
        -- 56 random bits, and never 0.
        VALUES (cache_raise.prefix,
            ('x' || left(replace(gen_random_uuid()::text, '-', ''), 15))::bit(60)::bigint + 1, 1)
        ON CONFLICT (prefix) DO UPDATE SET version = r.version + 1
        RETURNING r.* INTO raised;
    INSERT INTO recache.cache_epochs (prefix, slot, epoch)
        SELECT DISTINCT raised.prefix, s.slot, raised.version FROM unnest(cache_raise.slots) AS s (slot)
        ON CONFLICT (prefix, slot) DO UPDATE SET epoch = excluded.epoch;
    -- As the processes tell each other; see src/signal.rs. It is sent by the commit.
    PERFORM pg_notify('recache', json_build_object('from', '00000000-0000-0000-0000-000000000000',
        'c', json_build_array(json_build_array(raised.prefix, raised.incarnation, raised.version)))::text);
    RETURN raised.version;
END
$$;
