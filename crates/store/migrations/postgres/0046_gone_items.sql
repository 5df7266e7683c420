-- When the value of an item that only the cache kept was found to be gone: until it is made anew, nobody takes the item over. NULL: as far as is
-- known it is there.
ALTER TABLE view_items ADD COLUMN gone_at BIGINT;
