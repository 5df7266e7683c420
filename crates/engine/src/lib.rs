//! Runs and durably tracks jobs, workflows and views.
