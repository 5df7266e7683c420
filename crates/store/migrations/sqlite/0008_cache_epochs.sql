-- Which entries of the caches are still reachable: docs/decisions/0007-epochs-instead-of-keys.md. One record for each
-- key prefix; an epoch is the version at which its slot was raised last. To make every entry under a prefix
-- unreachable, after a restore from a backup for instance, delete its record: the next one is another incarnation.
CREATE TABLE cache_record (
    prefix      TEXT    NOT NULL PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    CONSTRAINT cache_record_prefix_is_short CHECK (length(prefix) <= 200),
    CONSTRAINT cache_record_is_numbered CHECK (incarnation > 0 AND version > 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_epochs (
    prefix TEXT    NOT NULL REFERENCES cache_record (prefix) ON DELETE CASCADE,
    slot   INTEGER NOT NULL,
    epoch  INTEGER NOT NULL,
    PRIMARY KEY (prefix, slot),
    CONSTRAINT cache_epochs_slot_is_small CHECK (slot BETWEEN 0 AND 32767)
) STRICT, WITHOUT ROWID;
