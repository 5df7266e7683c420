-- Jobs, workflows, tracked jobs and batches that are watched together: docs/decisions/0022-counts-of-batches.md.
-- `expected`: the announced total; NULL where members may be added until somebody closes the batch. `admitted` counts the members of those
-- with a total. `finished_as` is the state at the end as it was counted in the parent; `reopened_at`, when a retry last took the end back.
CREATE TABLE batches (
    id            BLOB    NOT NULL PRIMARY KEY,
    namespace     TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    metadata      TEXT    NOT NULL,
    parent_id     BLOB    REFERENCES batches (id),
    depth         INTEGER NOT NULL,
    expected      INTEGER,
    admitted      INTEGER NOT NULL DEFAULT 0,
    on_success    TEXT,
    on_finish     TEXT,
    on_failure    TEXT,
    success_job   BLOB,
    finish_job    BLOB,
    failure_job   BLOB,
    created_at    INTEGER NOT NULL,
    closed_at     INTEGER,
    cancelled_at  INTEGER,
    cancel_reason TEXT,
    finished_at   INTEGER,
    finished_as   TEXT,
    reopened_at   INTEGER,
    CONSTRAINT batches_admit_no_more_than_expected CHECK (expected IS NULL OR admitted <= expected),
    CONSTRAINT batches_callback_has_a_cause CHECK (
        (on_success IS NOT NULL OR success_job IS NULL) AND (on_finish IS NOT NULL OR finish_job IS NULL)
        AND (on_failure IS NOT NULL OR failure_job IS NULL)),
    CONSTRAINT batches_finished_is_closed CHECK (finished_at IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT batches_cancelled_is_closed CHECK (cancelled_at IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT batches_finish_is_whole CHECK ((finished_at IS NULL) = (finished_as IS NULL)),
    CONSTRAINT batches_finished_as_is_known CHECK (finished_as IN ('completed', 'failed', 'partial_failure'))
) STRICT;
CREATE INDEX batches_unfinished ON batches (id) WHERE finished_at IS NULL;
CREATE INDEX batches_ended ON batches (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX batches_by_parent ON batches (parent_id, id) WHERE parent_id IS NOT NULL;

-- The counts of a batch are the sums over its rows here. Each transaction adds to one of them, drawn by chance, so that many can add at
-- once; a single row may be negative. What is pending is what was added and has not ended.
CREATE TABLE batch_counts (
    batch_id   BLOB    NOT NULL,
    shard      INTEGER NOT NULL,
    added      INTEGER NOT NULL,
    completed  INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    superseded INTEGER NOT NULL,
    PRIMARY KEY (batch_id, shard)
) STRICT;

ALTER TABLE jobs ADD COLUMN batch_id BLOB;
ALTER TABLE workflows ADD COLUMN batch_id BLOB;
ALTER TABLE tracked_jobs ADD COLUMN batch_id BLOB;
CREATE INDEX jobs_by_batch ON jobs (batch_id, state, id) WHERE batch_id IS NOT NULL;
CREATE INDEX workflows_by_batch ON workflows (batch_id, state, id) WHERE batch_id IS NOT NULL;
CREATE INDEX tracked_jobs_by_batch ON tracked_jobs (batch_id, state, id) WHERE batch_id IS NOT NULL;
