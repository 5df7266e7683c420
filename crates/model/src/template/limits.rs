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
