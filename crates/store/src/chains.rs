//! Views that are made from others.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;

/// What a view is called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewName {
    /// Who it belongs to.
    pub namespace: String,
    /// Its key there.
    pub key: String,
}

impl ViewName {
    /// Of this namespace and key.
    pub fn new(namespace: impl Into<String>, key: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), key: key.into() }
    }
}

impl std::fmt::Display for ViewName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.key)
    }
}

/// The views next to one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Neighbours {
    /// Those that it is made from, by name.
    pub above: Vec<ViewName>,
    /// Those that are made from it, by name.
    pub below: Vec<ViewName>,
}

/// Most views that one view may be made from.
pub const SOURCES_MAX: usize = 100;

/// Of touches that wait for one view no more are counted.
pub const TOUCHES_COUNTED_MAX: u16 = 1_000;

/// The graph of views.
#[async_trait]
pub trait Chains: Send + Sync + Debug {
    /// Says from which others a view is made, in place of what was said before; none: from no view. When that is news, the view is touched.
    /// From then on a publication above that changed anything touches the view; one that changed nothing does not. A circle is a conflict. True
    /// when it is news.
    async fn view_derive(&self, view: ViewName, from: Vec<ViewName>) -> Result<bool>;

    /// How many touches of a view are committed and not carried out yet, because they were asked for in SQL or by a publication above;
    /// [`TOUCHES_COUNTED_MAX`] at most. Whoever reconciles views carries them out.
    async fn touches_waiting(&self, view: ViewName) -> Result<u64>;

    /// The views next to one.
    async fn view_neighbours(&self, view: ViewName) -> Result<Neighbours>;
}
