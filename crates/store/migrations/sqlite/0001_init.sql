-- Times are microseconds since 1970 UTC, ids are UUIDs as 16 bytes, JSON is text. The same table and column
-- names stand in migrations/postgres; what one text can say for both lives in src/statements.

CREATE TABLE sessions (
    id         BLOB    NOT NULL PRIMARY KEY,
    node       TEXT    NOT NULL,
    started_at INTEGER NOT NULL,
    beat_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE templates (
    digest     TEXT    NOT NULL PRIMARY KEY,
    namespace  TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    TEXT    NOT NULL,
    content    TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    CONSTRAINT templates_version_is_immutable UNIQUE (namespace, name, version)
) STRICT;

CREATE TABLE workflows (
    id              BLOB    NOT NULL PRIMARY KEY,
    namespace       TEXT    NOT NULL,
    template_digest TEXT    NOT NULL REFERENCES templates (digest),
    state           TEXT    NOT NULL,
    input           TEXT    NOT NULL,
    correlation_id  TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    finished_at     INTEGER,
    steps_blocked   INTEGER NOT NULL,
    steps_active    INTEGER NOT NULL,
    steps_done      INTEGER NOT NULL,
    steps_failed    INTEGER NOT NULL,
    steps_cancelled INTEGER NOT NULL,
    CONSTRAINT workflows_state_is_known CHECK (state IN ('running', 'completed', 'failed', 'cancelled')),
    CONSTRAINT workflows_finish_has_time CHECK ((state = 'running') = (finished_at IS NULL)),
    CONSTRAINT workflows_counts_are_counts CHECK (
        steps_blocked >= 0 AND steps_active >= 0 AND steps_done >= 0 AND steps_failed >= 0 AND steps_cancelled >= 0),
    CONSTRAINT workflows_completed_is_done CHECK (
        state <> 'completed' OR steps_blocked + steps_active + steps_failed + steps_cancelled = 0)
) STRICT;

CREATE TABLE views (
    id                  BLOB    NOT NULL PRIMARY KEY,
    namespace           TEXT    NOT NULL,
    key                 TEXT    NOT NULL,
    handler             TEXT    NOT NULL,
    queue               TEXT    NOT NULL,
    policy              TEXT    NOT NULL,
    retry               TEXT    NOT NULL,
    timeout_ms          INTEGER,
    recache_version     INTEGER NOT NULL DEFAULT 0,
    processing_version  INTEGER,
    live_version        INTEGER NOT NULL DEFAULT 0,
    oldest_version      INTEGER NOT NULL DEFAULT 0,
    recache_status      TEXT    NOT NULL DEFAULT 'idle',
    lease_epoch         INTEGER NOT NULL DEFAULT 0,
    build_job_id        BLOB,
    dirty_since         INTEGER,
    dirty_since_begin   INTEGER,
    touched_at          INTEGER,
    due_at              INTEGER,
    began_at            INTEGER,
    last_build_us       INTEGER,
    last_recached_at    INTEGER,
    last_error          TEXT,
    all_touched_version INTEGER NOT NULL DEFAULT 0,
    created_at          INTEGER NOT NULL,
    CONSTRAINT views_key_is_unique UNIQUE (namespace, key),
    CONSTRAINT views_status_is_known CHECK (recache_status IN ('idle', 'pending', 'processing', 'completed', 'failed')),
    CONSTRAINT views_live_is_not_ahead CHECK (live_version <= recache_version),
    CONSTRAINT views_processing_is_between CHECK (
        processing_version IS NULL OR (processing_version > live_version AND processing_version <= recache_version)),
    CONSTRAINT views_processing_has_build CHECK (processing_version IS NULL OR build_job_id IS NOT NULL),
    CONSTRAINT views_processing_has_begun CHECK ((processing_version IS NULL) = (began_at IS NULL)),
    CONSTRAINT views_wanted_has_a_way CHECK (
        live_version = recache_version OR build_job_id IS NOT NULL OR due_at IS NOT NULL OR recache_status = 'failed')
) STRICT;
CREATE INDEX views_due ON views (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE jobs (
    id             BLOB    NOT NULL PRIMARY KEY,
    namespace      TEXT    NOT NULL,
    queue          TEXT    NOT NULL,
    handler        TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    priority       INTEGER NOT NULL,
    due_at         INTEGER NOT NULL,
    input          TEXT    NOT NULL,
    output         TEXT,
    error          TEXT,
    retry          TEXT    NOT NULL,
    attempt        INTEGER NOT NULL DEFAULT 0,
    attempts_max   INTEGER NOT NULL,
    timeout_ms     INTEGER,
    epoch          INTEGER NOT NULL DEFAULT 0,
    claim          BLOB,
    session_id     BLOB,
    transitions    INTEGER NOT NULL DEFAULT 0,
    correlation_id TEXT    NOT NULL,
    trace_context  TEXT,
    workflow_id    BLOB REFERENCES workflows (id),
    step           TEXT,
    waiting_on     INTEGER NOT NULL DEFAULT 0,
    view_id        BLOB REFERENCES views (id),
    view_version   INTEGER,
    superseded_by  INTEGER,
    progress       REAL,
    message        TEXT,
    created_at     INTEGER NOT NULL,
    started_at     INTEGER,
    finished_at    INTEGER,
    CONSTRAINT jobs_state_is_known CHECK (state IN (
        'blocked', 'queued', 'running', 'completed', 'failed', 'cancelled', 'superseded', 'skipped', 'resolved')),
    CONSTRAINT jobs_running_has_session CHECK ((state = 'running') = (session_id IS NOT NULL)),
    CONSTRAINT jobs_running_has_claim CHECK (state <> 'running' OR claim IS NOT NULL),
    CONSTRAINT jobs_finish_has_time CHECK ((state IN ('blocked', 'queued', 'running')) = (finished_at IS NULL)),
    CONSTRAINT jobs_blocked_waits CHECK (state <> 'blocked' OR waiting_on > 0),
    CONSTRAINT jobs_unblocked_waits_for_nothing CHECK (
        waiting_on = 0 OR state IN ('blocked', 'cancelled', 'superseded', 'skipped')),
    CONSTRAINT jobs_attempts_are_bounded CHECK (attempts_max >= 1 AND attempt >= 0 AND attempt <= attempts_max),
    CONSTRAINT jobs_superseded_is_a_build CHECK (state <> 'superseded' OR view_id IS NOT NULL),
    CONSTRAINT jobs_step_has_workflow CHECK ((workflow_id IS NULL) = (step IS NULL)),
    CONSTRAINT jobs_progress_is_a_fraction CHECK (progress IS NULL OR (progress >= 0 AND progress <= 1))
) STRICT;
-- The only index that claiming reads, and the only one whose rows come and go with every step of a job's life
-- besides the small one that the sweep needs.
CREATE INDEX jobs_claimable ON jobs (queue, priority DESC, due_at, id) WHERE state = 'queued';
CREATE INDEX jobs_running ON jobs (session_id) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_one_live_build_per_view ON jobs (view_id)
    WHERE view_id IS NOT NULL AND state IN ('blocked', 'queued', 'running');
CREATE UNIQUE INDEX jobs_step_is_unique ON jobs (workflow_id, step) WHERE workflow_id IS NOT NULL;

CREATE TABLE job_history (
    job_id     BLOB    NOT NULL,
    seq        INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    from_state TEXT    NOT NULL,
    to_state   TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    session_id BLOB,
    detail     TEXT,
    PRIMARY KEY (job_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_edges (
    parent_id BLOB NOT NULL REFERENCES jobs (id),
    child_id  BLOB NOT NULL REFERENCES jobs (id),
    PRIMARY KEY (parent_id, child_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_edges_by_child ON job_edges (child_id);

CREATE TABLE view_touched_items (
    view_id BLOB    NOT NULL REFERENCES views (id),
    item    TEXT    NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (view_id, item)
) STRICT, WITHOUT ROWID;

-- An item is visible in the generations from `born` up to, not including, `died`.
CREATE TABLE view_items (
    view_id     BLOB    NOT NULL REFERENCES views (id),
    item        TEXT    NOT NULL,
    born        INTEGER NOT NULL,
    died        INTEGER,
    fingerprint TEXT,
    digest      TEXT    NOT NULL,
    value       TEXT    NOT NULL,
    PRIMARY KEY (view_id, item, born),
    CONSTRAINT view_items_die_after_birth CHECK (died IS NULL OR died > born)
) STRICT;
CREATE UNIQUE INDEX view_items_one_live ON view_items (view_id, item) WHERE died IS NULL;
CREATE INDEX view_items_dead ON view_items (view_id, died) WHERE died IS NOT NULL;

-- What builds have made and nobody can read: kept for the build that publishes it, or for its
-- successor. `lease_epoch` is that of the build that put it last.
CREATE TABLE view_staged (
    view_id     BLOB    NOT NULL REFERENCES views (id),
    item        TEXT    NOT NULL,
    lease_epoch INTEGER NOT NULL,
    fingerprint TEXT,
    digest      TEXT    NOT NULL,
    value       TEXT    NOT NULL,
    PRIMARY KEY (view_id, item)
) STRICT;

CREATE TABLE generations (
    view_id        BLOB    NOT NULL REFERENCES views (id),
    version        INTEGER NOT NULL,
    job_id         BLOB    NOT NULL,
    published_at   INTEGER NOT NULL,
    replaced_at    INTEGER,
    items_total    INTEGER NOT NULL,
    items_changed  INTEGER NOT NULL,
    items_removed  INTEGER NOT NULL,
    items_computed INTEGER NOT NULL,
    items_reused   INTEGER NOT NULL,
    build_us       INTEGER NOT NULL,
    PRIMARY KEY (view_id, version)
) STRICT, WITHOUT ROWID;
