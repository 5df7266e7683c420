-- A queue that somebody paused. `paused_until` is the end of time where nobody said until when.
CREATE TABLE queues (
    name         TEXT   NOT NULL PRIMARY KEY,
    paused_at    BIGINT NOT NULL,
    paused_until BIGINT NOT NULL,
    reason       TEXT   NOT NULL,
    actor        TEXT   NOT NULL
);

-- What may run at once and start in a while: of a queue, of a handler (both without a namespace), or of a concurrency key.
-- A claim that a limit concerns locks its row. `starts` is what a rate remembers (model::limits::Starts).
CREATE TABLE limits (
    scope       TEXT   NOT NULL,
    namespace   TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    running_max BIGINT,
    starts_max  BIGINT,
    period_us   BIGINT,
    starts      TEXT   NOT NULL DEFAULT '[]',
    actor       TEXT   NOT NULL,
    changed_at  BIGINT NOT NULL,
    PRIMARY KEY (scope, namespace, name),
    CONSTRAINT limits_scope_is_known CHECK (scope IN ('queue', 'handler', 'key')),
    CONSTRAINT limits_rate_is_whole CHECK ((starts_max IS NULL) = (period_us IS NULL)),
    CONSTRAINT limits_limit_something CHECK (running_max IS NOT NULL OR starts_max IS NOT NULL)
);

-- Jobs with a concurrency key have claimable indexes of their own: by order, and by key, for the case that one key's backlog hides
-- the others. The index of all other jobs stays as small and as cheap as it was.
ALTER TABLE jobs ADD COLUMN concurrency_key TEXT;
DROP INDEX jobs_claimable;
CREATE INDEX jobs_claimable ON jobs (queue, priority DESC, due_at, id)
    WHERE state = 'queued' AND concurrency_key IS NULL;
CREATE INDEX jobs_claimable_keyed ON jobs (queue, priority DESC, due_at, id)
    WHERE state = 'queued' AND concurrency_key IS NOT NULL;
CREATE INDEX jobs_claimable_by_key ON jobs (queue, namespace, concurrency_key, priority DESC, due_at, id)
    WHERE state = 'queued' AND concurrency_key IS NOT NULL;
CREATE INDEX jobs_running_by_key ON jobs (concurrency_key) WHERE state = 'running' AND concurrency_key IS NOT NULL;
