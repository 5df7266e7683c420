-- Jobs that begin at the ticks of a clock. `next_at` is the tick to wait for; NULL when there is none any more.
CREATE TABLE schedules (
    id             UUID   NOT NULL PRIMARY KEY,
    namespace      TEXT   NOT NULL,
    name           TEXT   NOT NULL,
    cron           TEXT   NOT NULL,
    zone           TEXT   NOT NULL,
    overlap        TEXT   NOT NULL,
    catch_up       TEXT   NOT NULL,
    queue          TEXT   NOT NULL,
    handler        TEXT   NOT NULL,
    input          TEXT   NOT NULL,
    priority       BIGINT NOT NULL,
    retry          TEXT   NOT NULL,
    timeout_ms     BIGINT,
    created_at     BIGINT NOT NULL,
    next_at        BIGINT,
    last_job_id    UUID,
    last_tick_at   BIGINT,
    ticks_skipped  BIGINT NOT NULL DEFAULT 0,
    paused_at      BIGINT,
    pause_reason   TEXT,
    pause_actor    TEXT,
    CONSTRAINT schedules_name_is_unique UNIQUE (namespace, name),
    CONSTRAINT schedules_overlap_is_known CHECK (overlap IN ('skip', 'allow', 'replace')),
    CONSTRAINT schedules_catch_up_is_known CHECK (catch_up IN ('skip', 'once')),
    CONSTRAINT schedules_pause_is_whole CHECK (
        (paused_at IS NULL) = (pause_reason IS NULL) AND (paused_at IS NULL) = (pause_actor IS NULL))
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL AND paused_at IS NULL;

-- No tick leads to two jobs, whoever believes to be the scheduler.
CREATE TABLE schedule_ticks (
    schedule_id UUID   NOT NULL,
    tick_at     BIGINT NOT NULL,
    job_id      UUID   NOT NULL,
    PRIMARY KEY (schedule_id, tick_at)
);
CREATE INDEX schedule_ticks_by_time ON schedule_ticks (tick_at);
