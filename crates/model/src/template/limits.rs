//! Every bound on a template, by name.

/// Largest source text that [`Template::parse`](super::Template::parse) reads, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1024 * 1024;

/// Largest canonical form, in bytes. It is what the store pins, aliases expanded and defaults written out.
pub const CANONICAL_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most values (scalars, lists, objects) that a source may hold once its aliases are expanded.
pub const NODES_MAX: usize = 500_000;

/// Most bytes of text that a source may hold once its aliases are expanded.
pub const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Deepest nesting of lists and objects, aliases expanded. Below the 128 at which JSON readers commonly stop.
pub const NESTING_MAX: usize = 64;

/// Most steps in one template.
pub const STEPS_MAX: usize = 10_000;

/// Longest name of a template, namespace, step or queue, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Longest version text, in bytes.
pub const VERSION_BYTES_MAX: usize = 128;

/// Longest name of a handler, in bytes.
pub const CALLABLE_BYTES_MAX: usize = 256;

/// Most attempts that `retry.max_attempts` may ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// Longest delay between attempts: 30 days.
pub const BACKOFF_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Longest timeout of a step: 30 days.
pub const TIMEOUT_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Lowest priority of a step.
pub const PRIORITY_MIN: i32 = -100;

/// Highest priority of a step.
pub const PRIORITY_MAX: i32 = 100;

/// Most problems that are listed one by one; the rest are counted.
pub const PROBLEMS_MAX: usize = 1_000;

/// Longest condition or other expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 1024;

/// Deepest nesting of brackets in one expression. The parser's own limit comes too late for a stack of 2 MiB.
pub const EXPRESSION_NESTING_MAX: usize = 32;

/// Most values that the result of one expression may hold.
pub const EXPRESSION_RESULT_PARTS_MAX: usize = 1_000_000;

/// What evaluating one expression may cost: about an instruction, a step of a loop, or 64 bytes of text each.
pub const EXPRESSION_FUEL: u64 = 10_000;

/// Most expressions in one template.
pub const EXPRESSIONS_MAX: usize = 20_000;

/// Most values (keywords, lists, scalars) that all JSON Schemas of one template hold together.
pub const SCHEMAS_PARTS_MAX: usize = 20_000;

/// Most regular expressions that all JSON Schemas of one template hold together.
pub const SCHEMAS_PATTERNS_MAX: usize = 200;

/// Deepest nesting of one JSON Schema, its references written out.
pub const SCHEMA_NESTING_MAX: usize = 48;

/// Most keywords of one JSON Schema, its references written out.
pub const SCHEMA_COST_MAX: u64 = 50_000;

/// Longest regular expression in a JSON Schema, in bytes.
pub const SCHEMA_PATTERN_BYTES_MAX: usize = 1024;

/// Largest compiled form of a regular expression in a JSON Schema, in bytes.
pub const SCHEMA_PATTERN_COMPILED_BYTES_MAX: usize = 256 * 1024;

/// What checking one value may cost: keywords of the schema times parts of the value.
pub const SCHEMA_WORK_MAX: u64 = 50_000_000;

/// Most mismatches of a value with its schema that are listed.
pub const SCHEMA_MISMATCHES_MAX: usize = 100;

/// Most environments in one template.
pub const ENVIRONMENTS_MAX: usize = 64;

/// Most events that a template declares, or that one step publishes.
pub const EVENTS_MAX: usize = 100;

/// Most children of one `for_each`, and what `limit` may ask for.
pub const FOR_EACH_CHILDREN_MAX: u32 = 10_000;

/// Children of one `for_each` that does not say how many there may be.
pub const FOR_EACH_CHILDREN_DEFAULT: u32 = 1_000;

/// Most rows of one batch.
pub const BATCH_ROWS_MAX: u32 = 1_000_000;

/// Most batches of one step that run at once.
pub const BATCHES_PARALLEL_MAX: u32 = 10_000;

/// Longest of a lifecycle's times, in minutes: 365 days.
pub const LIFECYCLE_MINUTES_MAX: u32 = 365 * 24 * 60;

/// Longest wait for a signal or an approval: 365 days.
pub const WAIT_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;

/// Longest time for which a step's result is used again: 365 days.
pub const CACHE_MS_MAX: u64 = 365 * 24 * 60 * 60 * 1_000;

/// Most expressions in `cache.inputs`.
pub const CACHE_INPUTS_MAX: usize = 32;

/// Most runs that `concurrency_key.limit` or `rate_limit.limit` may allow.
pub const RUNS_MAX: u32 = 1_000_000;

/// Longest period of a rate limit: 30 days.
pub const RATE_PERIOD_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Most names in `metadata.tags` or `system_dependencies.secondary`.
pub const NAMES_MAX: usize = 100;

/// Most steps that one decision may name.
pub const DECISION_STEPS_MAX: usize = 1_000;

/// Most decisions in a row, each created by the one before.
pub const DECISION_DEPTH_MAX: usize = 10;

/// Most batches that a batchable step may ask for.
pub const BATCHES_MAX: usize = 10_000;

/// Most workflows in a row, each a step of the one before.
pub const SUB_WORKFLOW_DEPTH_MAX: u32 = 10;
