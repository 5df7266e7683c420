//! How long cached values may live, from what they cost, how often they change and how often they are read.
//!
//! There is no rule of thumb here but an optimisation. Classes of keys are read and change as Poisson processes; a value is
//! made again at the first read after its life. Wanted are the lives that cost least to keep up, such that at most a given
//! share of *all* reads is served something outdated for longer than the budget allows ([`Settings`]). One multiplier, the
//! price of such a read, couples the classes; given the price, each class has one best life ([`decide`]).
//!
//! Where values are read often and change seldom the best life is `sqrt(s^2 + 2c / (p r w))` for a budget `s`, a cost `c`, a
//! price `p`, `r` reads and `w` changes a second: the square root of the economic order quantity (Harris 1913), from `s` upwards.
//! That a value which changes faster than it can be kept fresh is better left alone is known from crawlers (J. Cho, H.
//! Garcia-Molina, Effective Page Refresh Policies for Web Crawlers, ACM TODS 28, 2003); [`Settings::class_share_max`]
//! bounds that. How often a value changes is seen only when it is made again: how that is estimated follows
//! J. Cho, H. Garcia-Molina, Estimating Frequency of Change, ACM TOIT 3, 2003.
//!
//! ```
//! use recache_model::ttl::{Rates, Settings, decide};
//!
//! let seldom = Rates { reads_per_s: 50.0, changes_per_s: 1.0 / 86_400.0, rebuild_s: 0.2 };
//! let often = Rates { changes_per_s: 1.0 / 60.0, ..seldom };
//! let lives = decide(&[seldom, often], &Settings::default()).classes;
//! assert!(lives[0].ttl > lives[1].ttl);
//! assert!(lives[1].ttl >= Settings::default().staleness, "within its budget no read is too stale");
//! ```

pub mod simulation;

mod observe;
mod rule;
mod settings;

pub use observe::{Classes, Observation, Observed, Part, Phase, WINDOWS_KEPT};
pub use rule::{Bound, Correction, Decision, Decisions, Rates, at_life, decide};
pub use settings::{CLASSES_MAX, INSTANCES_MAX, Saves, Settings, SettingsProblem};
