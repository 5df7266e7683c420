//! What every provider must do. A case is an ordinary function over a [`World`]; `conformance!` holds the only list of
//! them, and a provider joins with one factory. A case that needs a capability asks for it in its first line; what was
//! skipped is printed.
//!
//! To join: `conformance!(some_provider, async |prefix| World::moved(…))`, or [`World::real`] where a server decides
//! about time. The factory gets a key prefix that nothing else uses, so that a server can be shared.

#[macro_use]
mod list;

mod atomics;
mod entries;
mod epochs;
mod leases;
mod messages;
mod replace;
mod world;

pub(crate) use self::atomics::*;
pub(crate) use self::entries::*;
pub(crate) use self::epochs::*;
pub(crate) use self::leases::*;
pub(crate) use self::list::conformance;
pub(crate) use self::messages::*;
pub(crate) use self::replace::*;
pub(crate) use self::world::*;
