-- What a view asks for beyond its policy (model::view_options), as JSON; NULL: nothing.
ALTER TABLE views ADD COLUMN options TEXT;
ALTER TABLE view_patterns ADD COLUMN options TEXT;

-- The build job that the workflow does, or that a workflow above it does; and the view's lease epoch of that build.
ALTER TABLE workflows ADD COLUMN build_job_id BLOB;
ALTER TABLE workflows ADD COLUMN build_epoch INTEGER;
CREATE INDEX workflows_of_build ON workflows (build_job_id) WHERE build_job_id IS NOT NULL;

-- Where a workflow builds: the step that put the item, and its lease epoch then. NULL: the build job itself did.
ALTER TABLE view_staged ADD COLUMN put_by BLOB;
ALTER TABLE view_staged ADD COLUMN put_epoch INTEGER;

-- What the steps of such a workflow said about items that they did not put: lists, so that what stays as it is costs no row each.
CREATE TABLE view_kept (
    id          BLOB NOT NULL PRIMARY KEY,
    view_id     BLOB NOT NULL REFERENCES views (id),
    lease_epoch INTEGER NOT NULL,
    put_by      BLOB NOT NULL,
    put_epoch   INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    items       TEXT NOT NULL,
    CONSTRAINT view_kept_kind_is_known CHECK (kind IN ('live', 'taken', 'rest', 'dropped'))
) STRICT;
CREATE INDEX view_kept_by_view ON view_kept (view_id);
