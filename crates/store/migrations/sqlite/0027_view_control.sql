-- Views in an operator's hands: paused, restored, deleted; and who touched them last, and why.
ALTER TABLE views ADD COLUMN paused_at INTEGER;
ALTER TABLE views ADD COLUMN paused_by TEXT;
ALTER TABLE views ADD COLUMN pause_reason TEXT;
ALTER TABLE views ADD COLUMN touched_by TEXT;
ALTER TABLE views ADD COLUMN touch_reason TEXT;
DROP INDEX views_due;
CREATE INDEX views_due ON views (due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL;

-- The builds of one view. Neither column ever changes, so that no step of a job's life costs more.
CREATE INDEX jobs_by_view ON jobs (view_id, id) WHERE view_id IS NOT NULL;

-- A generation that was restored has no build.
CREATE TABLE generations_new (
    view_id        BLOB    NOT NULL REFERENCES views (id),
    version        INTEGER NOT NULL,
    job_id         BLOB,
    published_at   INTEGER NOT NULL,
    replaced_at    INTEGER,
    items_total    INTEGER NOT NULL,
    items_changed  INTEGER NOT NULL,
    items_removed  INTEGER NOT NULL,
    items_computed INTEGER NOT NULL,
    items_reused   INTEGER NOT NULL,
    build_us       INTEGER NOT NULL,
    restored_from  INTEGER,
    restored_by    TEXT,
    restore_reason TEXT,
    PRIMARY KEY (view_id, version),
    CONSTRAINT generations_have_an_origin CHECK ((job_id IS NULL) = (restored_from IS NOT NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO generations_new (view_id, version, job_id, published_at, replaced_at, items_total, items_changed, items_removed,
    items_computed, items_reused, build_us)
SELECT view_id, version, job_id, published_at, replaced_at, items_total, items_changed, items_removed, items_computed,
    items_reused, build_us FROM generations;
DROP TABLE generations;
ALTER TABLE generations_new RENAME TO generations;
