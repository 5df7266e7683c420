-- The running of workflows: what a step is to the others, children of steps, waiting, sub-workflows, large results.

-- What only the overlays of one environment say; the pinned template is the one as it was written.
ALTER TABLE workflows ADD COLUMN environment TEXT;
-- The workflow and the step that it does, where it is a part of another one, and how many are above it.
ALTER TABLE workflows ADD COLUMN parent_id UUID;
ALTER TABLE workflows ADD COLUMN parent_job_id UUID;
ALTER TABLE workflows ADD COLUMN depth BIGINT NOT NULL DEFAULT 0;
CREATE INDEX workflows_children ON workflows (parent_id) WHERE parent_id IS NOT NULL;

-- `step_kind` is one of model::workflow::StepKind, none means plain. `has_rules`: its template is looked at when it ends.
ALTER TABLE jobs ADD COLUMN step_kind TEXT;
ALTER TABLE jobs ADD COLUMN has_rules BIGINT NOT NULL DEFAULT 0;
-- A child belongs to the step that was split into it, which waits for it by its count `waiting_on`, without edges.
ALTER TABLE jobs ADD COLUMN parent_id UUID;
ALTER TABLE jobs ADD COLUMN item TEXT;
ALTER TABLE jobs ADD COLUMN item_index BIGINT;
-- Dependencies that were skipped.
ALTER TABLE jobs ADD COLUMN skips BIGINT NOT NULL DEFAULT 0;
-- The end of waiting for a signal.
ALTER TABLE jobs ADD COLUMN wait_until BIGINT;
ALTER TABLE jobs ADD COLUMN sub_workflow_id UUID;
CREATE UNIQUE INDEX jobs_children ON jobs (parent_id, item_index) WHERE parent_id IS NOT NULL;
CREATE INDEX jobs_children_held ON jobs (parent_id, item_index) WHERE parent_id IS NOT NULL AND state = 'blocked';

-- Results too large for the row of their job, which is rewritten at every step of its life.
CREATE TABLE job_results (
    job_id UUID NOT NULL PRIMARY KEY,
    output TEXT NOT NULL
);

-- What a workflow was told: kept whether or not somebody waits for it already.
CREATE TABLE workflow_signals (
    workflow_id UUID   NOT NULL,
    kind        TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    payload     TEXT   NOT NULL,
    actor       TEXT   NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (workflow_id, kind, name),
    CONSTRAINT workflow_signals_kind_is_known CHECK (kind IN ('signal', 'approval'))
);

-- What the rates of steps remember (model::limits::Starts).
CREATE TABLE step_rates (
    namespace  TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    starts     TEXT   NOT NULL,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, key)
);
