-- Limits of time: one row for each step and each workflow that has any; what has none is in no row and costs nothing.
-- `limits` is model::lifecycle::TimeLimits, `found` the names of those that were found to have passed. `counted_from`: since when
-- its duration counts. `look_at`: the earliest moment at which one can pass; none when no one is left or it has ended.
CREATE TABLE lifecycles (
    subject_id   BLOB    NOT NULL PRIMARY KEY,
    workflow_id  BLOB   NOT NULL,
    limits       TEXT   NOT NULL,
    found        TEXT   NOT NULL DEFAULT '[]',
    counted_from INTEGER NOT NULL,
    look_at      INTEGER
) STRICT;
CREATE INDEX lifecycles_due ON lifecycles (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX lifecycles_by_workflow ON lifecycles (workflow_id);

-- When a running attempt last kept its checkpoint.
ALTER TABLE jobs ADD COLUMN checkpoint_at INTEGER;

-- Results that a workflow takes over from the one that it runs again in part: a turn of the step ends with its row's.
CREATE TABLE given_results (
    workflow_id BLOB NOT NULL,
    step        TEXT NOT NULL,
    output      TEXT NOT NULL,
    PRIMARY KEY (workflow_id, step)
) STRICT;
-- The workflow that this one runs again in part.
ALTER TABLE workflows ADD COLUMN again_of BLOB;
