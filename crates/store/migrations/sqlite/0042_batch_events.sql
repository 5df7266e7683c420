-- When the events of a batch were written: each once in its life.
ALTER TABLE batches ADD COLUMN success_told_at INTEGER;
ALTER TABLE batches ADD COLUMN finish_told_at INTEGER;
ALTER TABLE batches ADD COLUMN failure_told_at INTEGER;
UPDATE batches SET finish_told_at = finished_at WHERE finished_at IS NOT NULL;
UPDATE batches SET success_told_at = finished_at WHERE finished_as = 'completed';
UPDATE batches SET failure_told_at = finished_at WHERE finished_as IN ('failed', 'partial_failure');
