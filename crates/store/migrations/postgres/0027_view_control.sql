-- Views in an operator's hands: paused, restored, deleted; and who touched them last, and why.
ALTER TABLE views ADD COLUMN paused_at BIGINT;
ALTER TABLE views ADD COLUMN paused_by TEXT;
ALTER TABLE views ADD COLUMN pause_reason TEXT;
ALTER TABLE views ADD COLUMN touched_by TEXT;
ALTER TABLE views ADD COLUMN touch_reason TEXT;
DROP INDEX views_due;
CREATE INDEX views_due ON views (due_at) WHERE due_at IS NOT NULL AND paused_at IS NULL;

-- The builds of one view. Neither column ever changes, so that no step of a job's life costs more.
CREATE INDEX jobs_by_view ON jobs (view_id, id) WHERE view_id IS NOT NULL;

-- A generation that was restored has no build.
ALTER TABLE generations ALTER COLUMN job_id DROP NOT NULL;
ALTER TABLE generations ADD COLUMN restored_from BIGINT;
ALTER TABLE generations ADD COLUMN restored_by TEXT;
ALTER TABLE generations ADD COLUMN restore_reason TEXT;
ALTER TABLE generations ADD CONSTRAINT generations_have_an_origin CHECK ((job_id IS NULL) = (restored_from IS NOT NULL));
