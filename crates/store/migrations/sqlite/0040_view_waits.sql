-- When the wait for further touches began that is under way: `debounce_max` counts from here.
ALTER TABLE views ADD COLUMN waits_since INTEGER;
