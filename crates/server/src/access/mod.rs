//! Who asks, and what they may do.
//!
//! A request is *identified* before anything of it is looked at ([`Gate`]); each route names the [`Permission`] that it needs
//! ([`crate::routes`]), and is refused without it before its handler runs; the handler asks its [`Caller`] about the namespace of what it
//! touches. What lies in a namespace that the caller may not see does not exist for it (404).

mod caller;
mod fetched_keys;
mod gate;
mod guard;
mod jwt;
mod key_set;
mod keys;
mod permission;
mod rate;

pub(crate) use caller::Caller;
pub use fetched_keys::KeySource;
pub(crate) use gate::Gate;
pub use gate::{Auth, Identity};
pub(crate) use guard::check_origin;
pub use jwt::{JwtKeys, JwtSettings};
pub use keys::make_key;
pub(crate) use permission::Reach;
pub use permission::{Action, Grant, GrantError, Grants, Permission};
pub(crate) use rate::Rates;
