//! What a build knows of items that exist, page by page: a view of a million items is built in the memory that one of a thousand needs.
//!
//! Keys are compared byte by byte on both databases, so a caller finds the page of a key by itself. The live items stay as they are while a build
//! goes on, so a page of them always holds the same ones; of the staged ones those count that this build has neither put nor taken over.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;
use crate::records::{BuildStart, ItemMark, LeaseToken, Revoked};

/// Items of one page of [`KnownPages`].
pub const KNOWN_PAGE_ROWS: u32 = 256;

/// Which items are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownPlace {
    /// Those that readers see.
    Live,
    /// Those that superseded or failed builds have put.
    Staged,
}

/// The keys with which pages of [`KNOWN_PAGE_ROWS`] items begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownStarts {
    /// Items of all pages.
    pub count: u64,
    /// In the order of the keys.
    pub starts: Vec<String>,
}

/// All pages of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KnownPages {
    /// Of the live items.
    pub live: KnownStarts,
    /// Of the staged ones.
    pub staged: KnownStarts,
}

/// Items that exist while a build goes on. Every call takes the token of the build job.
#[async_trait]
pub trait KnownItems: Send + Sync + Debug {
    /// As [`build_begin`](crate::Store::build_begin), but of more than `known_max` live or staged items none is listed: the start
    /// [is large](BuildStart::is_large), and they are asked for by pages.
    async fn build_open(
        &self,
        token: LeaseToken,
        known_max: u32,
    ) -> Result<std::result::Result<BuildStart, Revoked>>;

    /// Where pages begin.
    async fn known_pages(&self, token: LeaseToken) -> Result<std::result::Result<KnownPages, Revoked>>;

    /// The items from `from` on, and before `until`, in the order of their keys.
    async fn known_read(
        &self,
        token: LeaseToken,
        place: KnownPlace,
        from: String,
        until: Option<String>,
    ) -> Result<std::result::Result<Vec<ItemMark>, Revoked>>;

    /// The live items of such a range, each with whether this build has put it or taken it over.
    async fn known_put(
        &self,
        token: LeaseToken,
        from: String,
        until: Option<String>,
    ) -> Result<std::result::Result<Vec<(String, bool)>, Revoked>>;

    /// How many items this build has put or taken over that are not live.
    async fn known_new(&self, token: LeaseToken) -> Result<std::result::Result<u64, Revoked>>;
}
