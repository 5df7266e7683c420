-- Which steps ended when, for the roll-ups below; jobs that are no steps are in jobs_ended. A step enters it once, at its end.
CREATE INDEX jobs_steps_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL AND workflow_id IS NOT NULL;
-- Which workflows have not ended: how many there are is asked for, and must not depend on how many have.
CREATE INDEX workflows_active ON workflows (namespace) WHERE finished_at IS NULL;

-- What ended in a minute, added up: `series` says of what, `totals` how much (model::figures). A row follows from the rows of
-- jobs and workflows and is replaced as a whole, never added to: to fold a minute twice does no harm.
CREATE TABLE figures_minutes (
    minute INTEGER NOT NULL,
    series TEXT    NOT NULL,
    totals TEXT    NOT NULL,
    PRIMARY KEY (minute, series)
) STRICT;

-- The last minute that was folded.
CREATE TABLE figures_watermark (
    id     INTEGER NOT NULL PRIMARY KEY,
    minute INTEGER NOT NULL,
    CONSTRAINT figures_watermark_is_one CHECK (id = 1)
) STRICT;
