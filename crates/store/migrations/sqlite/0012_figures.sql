-- Which workflows of a template ended last: their steps say how long its steps run.
CREATE INDEX workflows_by_template ON workflows (template_digest, finished_at DESC) WHERE finished_at IS NOT NULL;
