//! A circuit breaker: it stops calling what does not answer, and finds out by itself when that answers again.
//!
//! ```text
//!            failures in a row, or failure or slow rate reached
//!   closed ────────────────────────────────────────────────────▶ open ◀──┐
//!     ▲                                                           │       │ first failed or slow probe,
//!     │ every probe succeeded                                     │       │ or no decision within the wait
//!     └──────────────────────────── half-open ◀───────────────────┘       │
//!                                       │        time is up, next call    │
//!                                       └─────────────────────────────────┘
//! ```
//!
//! - **Closed** admits every call. It opens on [`Settings::failure_threshold`] failures in a row, or when the window
//!   holds at least [`Settings::min_calls`] results and the share of failed or of slow ones reaches its threshold.
//! - **Open** refuses every call for [`Settings::open_for`], longer with each reopening when
//!   [`Settings::backoff_factor`] is above 1.
//! - **Half-open** admits exactly [`Settings::permits`] calls. That many successes close it; the first that fails or is
//!   slow reopens it. A call that ends without telling anything gives its permit back. A call that never ends holds its
//!   permit for at most [`Settings::half_open_max_wait`] after the last admission; then the breaker reopens.
//! - **Forced open** and **disabled** last until [`Breaker::reset`].
//!
//! Every change begins a new *era*. A result counts only in the era of its admission, so that what began before the
//! breaker opened can neither close it nor open it anew.
//!
//! A call is *slow* when it took strictly longer than [`Settings::slow_after`]; a slow failure counts in both rates. A
//! call that its caller gave up counts as a slow failure when it was slow by then, and as nothing when it was not.
//!
//! The rules are in `machine`, pure: no clock, no lock, no log. [`Breaker`] makes them safe to share: admission and
//! success while closed cost one load and one compare-and-swap, everything that may change the state takes a small
//! lock. Time comes from a [`Monotonic`] source; the wall clock is never asked.

mod concurrent;
mod machine;
mod sync;
mod window;

pub use self::concurrent::{Breaker, Monotonic, Observer, Permit, Refusal};
pub use self::machine::{Outcome, Phase, Reason, Report, Settings, Tick, Transition, Window};
