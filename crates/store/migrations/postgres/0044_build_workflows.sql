-- What a view asks for beyond its policy (model::view_options), as JSON; NULL: nothing.
ALTER TABLE views ADD COLUMN options TEXT;
ALTER TABLE view_patterns ADD COLUMN options TEXT;

-- The build job that the workflow does, or that a workflow above it does; and the view's lease epoch of that build.
ALTER TABLE workflows ADD COLUMN build_job_id UUID;
ALTER TABLE workflows ADD COLUMN build_epoch BIGINT;
CREATE INDEX workflows_of_build ON workflows (build_job_id) WHERE build_job_id IS NOT NULL;

-- Where a workflow builds: the step that put the item, and its lease epoch then. NULL: the build job itself did.
ALTER TABLE view_staged ADD COLUMN put_by UUID;
ALTER TABLE view_staged ADD COLUMN put_epoch BIGINT;

-- What the steps of such a workflow said about items that they did not put: lists, so that what stays as it is costs no row each.
CREATE TABLE view_kept (
    id          UUID NOT NULL PRIMARY KEY,
    view_id     UUID NOT NULL REFERENCES views (id),
    lease_epoch BIGINT NOT NULL,
    put_by      UUID NOT NULL,
    put_epoch   BIGINT NOT NULL,
    kind        TEXT NOT NULL,
    items       TEXT NOT NULL,
    CONSTRAINT view_kept_kind_is_known CHECK (kind IN ('live', 'taken', 'rest', 'dropped'))
);
CREATE INDEX view_kept_by_view ON view_kept (view_id);
