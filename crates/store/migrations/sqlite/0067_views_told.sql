-- How many items of a superseded build's own making a later generation took over.
ALTER TABLE view_staged ADD COLUMN made_by BLOB;
CREATE TABLE build_work (
    view_id    BLOB NOT NULL REFERENCES views (id),
    job_id     BLOB NOT NULL,
    version    INTEGER NOT NULL,
    items_used INTEGER NOT NULL,
    PRIMARY KEY (view_id, job_id)
) STRICT;

-- By which way a view was touched last. Of a request NULL is an application's own SQL; of a view it is a call.
ALTER TABLE touch_requests ADD COLUMN source TEXT;
ALTER TABLE views ADD COLUMN touch_source TEXT;
