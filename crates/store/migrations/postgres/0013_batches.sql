-- Jobs, workflows, tracked jobs and batches that are watched together: docs/decisions/0022-counts-of-batches.md.
-- `expected`: the announced total; NULL where members may be added until somebody closes the batch. `admitted` counts the members of those
-- with a total. `finished_as` is the state at the end as it was counted in the parent; `reopened_at`, when a retry last took the end back.
CREATE TABLE batches (
    id            UUID    NOT NULL PRIMARY KEY,
    namespace     TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    metadata      TEXT    NOT NULL,
    parent_id     UUID    REFERENCES batches (id),
    depth         BIGINT NOT NULL,
    expected      BIGINT,
    admitted      BIGINT NOT NULL DEFAULT 0,
    on_success    TEXT,
    on_finish     TEXT,
    on_failure    TEXT,
    success_job   UUID,
    finish_job    UUID,
    failure_job   UUID,
    created_at    BIGINT NOT NULL,
    closed_at     BIGINT,
    cancelled_at  BIGINT,
    cancel_reason TEXT,
    finished_at   BIGINT,
    finished_as   TEXT,
    reopened_at   BIGINT,
    CONSTRAINT batches_admit_no_more_than_expected CHECK (expected IS NULL OR admitted <= expected),
    CONSTRAINT batches_callback_has_a_cause CHECK (
        (on_success IS NOT NULL OR success_job IS NULL) AND (on_finish IS NOT NULL OR finish_job IS NULL)
        AND (on_failure IS NOT NULL OR failure_job IS NULL)),
    CONSTRAINT batches_finished_is_closed CHECK (finished_at IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT batches_cancelled_is_closed CHECK (cancelled_at IS NULL OR closed_at IS NOT NULL),
    CONSTRAINT batches_finish_is_whole CHECK ((finished_at IS NULL) = (finished_as IS NULL)),
    CONSTRAINT batches_finished_as_is_known CHECK (finished_as IN ('completed', 'failed', 'partial_failure'))
);
CREATE INDEX batches_unfinished ON batches (id) WHERE finished_at IS NULL;
CREATE INDEX batches_ended ON batches (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX batches_by_parent ON batches (parent_id, id) WHERE parent_id IS NOT NULL;

-- The counts of a batch are the sums over its rows here. Each transaction adds to one of them, drawn by chance, so that many can add at
-- once; a single row may be negative. What is pending is what was added and has not ended.
CREATE TABLE batch_counts (
    batch_id   UUID    NOT NULL,
    shard      BIGINT NOT NULL,
    added      BIGINT NOT NULL,
    completed  BIGINT NOT NULL,
    failed     BIGINT NOT NULL,
    cancelled  BIGINT NOT NULL,
    superseded BIGINT NOT NULL,
    PRIMARY KEY (batch_id, shard)
) WITH (fillfactor = 50);

ALTER TABLE jobs ADD COLUMN batch_id UUID;
ALTER TABLE workflows ADD COLUMN batch_id UUID;
ALTER TABLE tracked_jobs ADD COLUMN batch_id UUID;
CREATE INDEX jobs_by_batch ON jobs (batch_id, state, id) WHERE batch_id IS NOT NULL;
CREATE INDEX workflows_by_batch ON workflows (batch_id, state, id) WHERE batch_id IS NOT NULL;
CREATE INDEX tracked_jobs_by_batch ON tracked_jobs (batch_id, state, id) WHERE batch_id IS NOT NULL;
