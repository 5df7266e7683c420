-- Jobs that some other system runs and reports here: docs/decisions/0012-tracked-jobs-are-no-jobs.md. No worker can claim
-- them. While one has not ended it has a deadline, moved by whatever is heard of it; the led maintenance fails it after that.
CREATE TABLE tracked_jobs (
    id              UUID    NOT NULL PRIMARY KEY,
    namespace       TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    context_type    TEXT,
    context_id      TEXT,
    context_field   TEXT,
    owner           TEXT,
    metadata        TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    message         TEXT,
    code            TEXT,
    data            TEXT,
    progress        DOUBLE PRECISION,
    items_done      BIGINT,
    items_total     BIGINT,
    revision        BIGINT NOT NULL,
    stale_after_us  BIGINT NOT NULL,
    stale_at        BIGINT,
    created_at      BIGINT NOT NULL,
    heard_at        BIGINT NOT NULL,
    started_at      BIGINT,
    finished_at     BIGINT,
    acknowledged_at BIGINT,
    acknowledged_by TEXT,
    CONSTRAINT tracked_jobs_state_is_known CHECK (
        state IN ('queued', 'processing', 'completed', 'failed', 'cancelled')),
    CONSTRAINT tracked_jobs_finish_has_time CHECK ((state IN ('queued', 'processing')) = (finished_at IS NULL)),
    CONSTRAINT tracked_jobs_live_has_deadline CHECK ((finished_at IS NULL) = (stale_at IS NOT NULL)),
    CONSTRAINT tracked_jobs_context_is_whole CHECK (
        (context_type IS NULL) = (context_id IS NULL) AND (context_field IS NULL OR context_id IS NOT NULL)),
    CONSTRAINT tracked_jobs_progress_is_a_fraction CHECK (progress IS NULL OR (progress >= 0 AND progress <= 1)),
    CONSTRAINT tracked_jobs_acknowledged_has_ended CHECK (
        (acknowledged_at IS NULL) = (acknowledged_by IS NULL) AND (acknowledged_at IS NULL OR finished_at IS NOT NULL))
);
CREATE INDEX tracked_jobs_by_context ON tracked_jobs (namespace, context_type, context_id, context_field, id)
    WHERE context_type IS NOT NULL;
CREATE INDEX tracked_jobs_stale ON tracked_jobs (stale_at) WHERE stale_at IS NOT NULL;
CREATE INDEX tracked_jobs_ended ON tracked_jobs (state, finished_at) WHERE finished_at IS NOT NULL;
