-- How many items of a superseded build's own making a later generation took over.
ALTER TABLE view_staged ADD COLUMN made_by UUID;
CREATE TABLE build_work (
    view_id    UUID NOT NULL REFERENCES views (id),
    job_id     UUID NOT NULL,
    version    BIGINT NOT NULL,
    items_used BIGINT NOT NULL,
    PRIMARY KEY (view_id, job_id)
);

-- By which way a view was touched last. Of a request NULL is an application's own SQL; of a view it is a call.
ALTER TABLE touch_requests ADD COLUMN source TEXT;
ALTER TABLE views ADD COLUMN touch_source TEXT;

-- Until when a replaced generation can be read, where its view says so; else it is the process that says so.
ALTER TABLE generations ADD COLUMN readable_until BIGINT;
CREATE INDEX generations_readable_until ON generations (readable_until) WHERE is_readable AND readable_until IS NOT NULL;
-- How long the worker of a build may be silent, where its view says so.
ALTER TABLE views ADD COLUMN build_lease_ms BIGINT;
