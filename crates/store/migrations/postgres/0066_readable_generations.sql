-- What nobody reads any more is found by the generations whose items are still kept, not by all there have been.
ALTER TABLE generations ADD COLUMN is_readable BOOLEAN NOT NULL DEFAULT TRUE;
CREATE INDEX generations_readable ON generations (replaced_at) WHERE is_readable AND replaced_at IS NOT NULL;
