//! Workflow templates: from YAML or JSON to a checked definition, or to every reason why not.
//!
//! ```
//! use recache_model::template::Template;
//!
//! let template = Template::parse(
//!     "
//! name: refresh_catalogue
//! version: 1.0.0
//! steps:
//!   - name: fetch
//!     handler: { callable: catalogue.fetch }
//!   - name: publish
//!     handler: { callable: catalogue.publish }
//!     depends_on: [fetch]
//! ",
//!     "catalogue.yaml",
//! )?;
//! assert_eq!(template.graph().topological_order(), [0, 1]);
//!
//! let problems = Template::parse("name: refresh catalogue\nversoin: 1.0.0\n", "bad.yaml").unwrap_err();
//! let told = problems.to_string();
//! assert!(told.contains("bad.yaml:1:7: `name` is not a name"));
//! assert!(told.contains("bad.yaml:2:1: the template has no field \"versoin\" (help: did you mean `version`?)"));
//! assert!(told.contains("bad.yaml:1:1: the template lacks `steps`"));
//! # Ok::<(), recache_model::template::Problems>(())
//! ```
//!
//! The way through: `yaml` (or `json`, for a pinned canonical form) reads text into a `tree` of values with
//! positions; `read` walks it by the lists of fields in [`shape`] and builds the [`Template`]. What the engine does not
//! run yet is read and kept all the same: [`Template::unsupported`] names it, and whoever runs a template must refuse
//! it by that.
//!
//! A template can be compared ([`Diff`]), drawn ([`draw`]) and seen as it is in one environment
//! ([`Template::for_environment`]).
//!
//! Pure: no I/O, no clock. No input panics, and none takes more than its bounds in [`limits`] allow; expressions and JSON
//! Schemas, which are small programs, have bounds of their own before their libraries see them.

mod batch;
mod canonical;
mod definition;
mod diff;
pub mod draw;
mod environment;
mod events;
mod expression;
mod expression_words;
mod fields;
mod flow;
pub mod graph;
mod json;
mod json_schema;
mod lifecycle;
pub mod limits;
mod problems;
mod read;
mod results;
mod scalar;
mod schema_bounds;
pub mod shape;
mod step;
mod suggest;
mod tree;
mod unsupported;
mod values;
mod versions;
mod words;
mod yaml;

pub use batch::{BatchConfig, FailureStrategy};
pub use canonical::Digest;
pub use definition::{Metadata, SettingProblem, SystemDependencies, Template};
pub use diff::{Diff, FieldChange, StepChange};
pub use environment::{Environment, OverlayTarget, RetryOverlay, StepOverlay};
pub use events::{DeliveryMode, DomainEvent, EventCondition, PublishedEvent};
pub use expression::{Expression, ExpressionError, FILTERS, Scope, TESTS};
pub use flow::{Awaited, CacheReuse, ConcurrencyKey, ForEach, OnTimeout, RateLimit, SubWorkflow, WaitFor};
pub use graph::Graph;
pub use json_schema::{JsonSchema, Mismatch, Mismatches};
pub use lifecycle::{Lifecycle, StalenessAction, limits_of_step};
pub use problems::{Position, Problem, Problems};
pub use results::{Batches, ResultError, batches, decision_names};
pub use semver::{Version, VersionReq};
pub use step::{BackoffSpec, Handler, RetrySpec, Step, StepType};
pub use versions::{compare_versions, newest_version};
