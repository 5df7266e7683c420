//! Views that workers elsewhere build.

use recache_model::ids::SessionId;
use recache_store::{BuildStart, Keep, LeaseToken, PartStart, Revoked, StagedItem, ViewName};

use super::Remote;
use crate::error::{Error, Result};
use crate::kept;

/// Items of one call.
const ITEMS_MAX: usize = 10_000;

impl Remote {
    /// A worker begins the build that it holds: it takes the newest version wanted. `None`: the session has ended.
    pub async fn build_begin(
        &self,
        session: SessionId,
        secret: &str,
        token: LeaseToken,
    ) -> Result<Option<std::result::Result<BuildStart, Revoked>>> {
        if self.known(session, secret).await?.is_none() {
            return Ok(None);
        }
        let mut begun = self.shared.store.build_begin(token).await?;
        if let Ok(start) = &begun
            && start.is_held
        {
            let name = ViewName::new(start.namespace.as_str(), start.key.as_str());
            if kept::check(&self.shared, start.view, &name).await? > 0 {
                begun = self.shared.store.build_begin(token).await?;
            }
        }
        if let Ok(start) = &begun {
            self.shared.heads.builds(start.view, &start.namespace, &start.key);
        }
        Ok(Some(begun))
    }

    /// Puts items where no reader looks. Inner `None`: they are kept. Outer `None`: the session has ended.
    pub async fn build_put(
        &self,
        session: SessionId,
        secret: &str,
        token: LeaseToken,
        items: Vec<StagedItem>,
    ) -> Result<Option<Option<Revoked>>> {
        if items.len() > ITEMS_MAX {
            return Err(Error::Invalid(format!(
                "{} items in one call; the limit is {ITEMS_MAX}",
                items.len()
            )));
        }
        check_items(&items)?;
        if self.known(session, secret).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(kept::put(&self.shared, token, items).await?))
    }
}

impl Remote {
    /// A worker's step begins its part of the build that its workflow does. `None`: the session has ended.
    pub async fn part_begin(
        &self,
        session: SessionId,
        secret: &str,
        token: LeaseToken,
    ) -> Result<Option<std::result::Result<PartStart, Revoked>>> {
        if self.known(session, secret).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.shared.store.build_workflows().part_begin(token).await?))
    }

    /// Keeps items that such a step does not put; answers for each whether it is kept. `None`: the session has ended.
    pub async fn part_keep(
        &self,
        session: SessionId,
        secret: &str,
        token: LeaseToken,
        keep: Keep,
    ) -> Result<Option<std::result::Result<Vec<bool>, Revoked>>> {
        if self.known(session, secret).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.shared.store.build_workflows().part_keep(token, keep).await?))
    }

    /// Values of live items, for whoever builds. `None`: the session has ended.
    pub async fn previous_read(
        &self,
        session: SessionId,
        secret: &str,
        token: LeaseToken,
        items: Vec<String>,
    ) -> Result<Option<std::result::Result<Vec<(String, String)>, Revoked>>> {
        if self.known(session, secret).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(kept::previous(&self.shared, token, items).await?))
    }
}

/// The limits that local builds have.
fn check_items(items: &[StagedItem]) -> Result<()> {
    let mut problems = Vec::new();
    let mut keys = std::collections::HashSet::new();
    for item in items {
        if !keys.insert(item.item.as_str()) {
            problems.push(format!("item `{}` is put twice in one call", item.item.escape_debug()));
        }
        let key_bytes = item.item.len();
        if key_bytes == 0 || key_bytes > recache_worker::ITEM_KEY_BYTES_MAX || item.item.contains('\0') {
            problems.push(format!(
                "an item's key must have 1 to {} bytes and no NUL, and has {key_bytes}",
                recache_worker::ITEM_KEY_BYTES_MAX
            ));
        }
        if item.value.as_ref().is_some_and(|value| value.len() > recache_worker::ITEM_VALUE_BYTES_MAX) {
            problems.push(format!(
                "item `{}`: a value has at most {} bytes",
                item.item.escape_debug(),
                recache_worker::ITEM_VALUE_BYTES_MAX
            ));
        }
        let is_mark =
            |mark: &String| mark.len() <= recache_worker::ITEM_KEY_BYTES_MAX && !mark.contains('\0');
        if !item.fingerprint.as_ref().is_none_or(is_mark) {
            problems.push(format!(
                "item `{}`: a fingerprint has at most {} bytes and no NUL",
                item.item.escape_debug(),
                recache_worker::ITEM_KEY_BYTES_MAX
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems.join("; "))) }
}
