//! Permissions as values: what a route needs and what a caller was given.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What is done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Look at it.
    Read,
    /// Bring new work: submit, define, touch, report.
    Write,
    /// Interfere with what is there: cancel, retry, pause, resolve.
    Operate,
}

impl Action {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Operate];

    /// The word in scopes.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Operate => "operate",
        }
    }
}

/// What a route needs: `resource:action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permission {
    resource: &'static str,
    action: Action,
    is_global: bool,
}

impl Permission {
    /// On things that belong to namespaces.
    pub const fn new(resource: &'static str, action: Action) -> Self {
        Self { resource, action, is_global: false }
    }

    /// On what belongs to no namespace: only whoever may do it in all of them may do it.
    pub const fn global(resource: &'static str, action: Action) -> Self {
        Self { resource, action, is_global: true }
    }

    /// Of what.
    pub const fn resource(self) -> &'static str {
        self.resource
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.resource, self.action.word())
    }
}

/// A scope: `RESOURCE:ACTION`, `*` for any, and `@NAMESPACE` where it holds in one namespace only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    resource: Option<String>,
    action: Option<Action>,
    namespace: Option<String>,
}

/// A text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no scope: write RESOURCE:ACTION, such as jobs:read or *:*, and @NAMESPACE for one namespace only"
)]
pub struct GrantError(String);

impl Grant {
    /// Of what; `None`: of anything.
    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    fn covers(&self, permission: Permission) -> bool {
        self.resource.as_deref().is_none_or(|resource| resource == permission.resource)
            && self.action.is_none_or(|action| action == permission.action)
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let error = || GrantError(text.chars().take(100).collect());
        let (permission, namespace) = match text.split_once('@') {
            Some((_, "")) => return Err(error()),
            Some((permission, namespace)) => (permission, Some(namespace.to_owned())),
            None => (text, None),
        };
        let (resource, action) = permission.split_once(':').ok_or_else(error)?;
        let is_name =
            !resource.is_empty() && resource.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let resource = match resource {
            "*" => None,
            _ if is_name => Some(resource.to_owned()),
            _ => return Err(error()),
        };
        let action = match action {
            "*" => None,
            word => Some(Action::ALL.into_iter().find(|action| action.word() == word).ok_or_else(error)?),
        };
        Ok(Self { resource, action, namespace })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resource = self.resource.as_deref().unwrap_or("*");
        write!(out, "{resource}:{}", self.action.map_or("*", Action::word))?;
        match &self.namespace {
            Some(namespace) => write!(out, "@{namespace}"),
            None => Ok(()),
        }
    }
}

/// Where a permission holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// In every namespace.
    All,
    /// In these; none at all where there are none.
    Only(BTreeSet<String>),
}

/// What a caller was given. Empty is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// Everything, everywhere.
    pub fn everything() -> Self {
        Self(vec![Grant { resource: None, action: None, namespace: None }])
    }

    /// Those of a list.
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }

    /// In which namespaces this is permitted.
    pub(crate) fn reach(&self, permission: Permission) -> Reach {
        let mut namespaces = BTreeSet::new();
        for grant in self.0.iter().filter(|grant| grant.covers(permission)) {
            match &grant.namespace {
                None => return Reach::All,
                Some(namespace) => namespaces.insert(namespace.clone()),
            };
        }
        Reach::Only(namespaces)
    }

    /// Whether this is permitted in the namespace.
    pub(crate) fn allow_in(&self, permission: Permission, namespace: &str) -> bool {
        self.0.iter().any(|grant| {
            grant.covers(permission) && grant.namespace.as_deref().is_none_or(|one| one == namespace)
        })
    }

    /// Whether a route that needs this may be entered at all.
    pub(crate) fn allow(&self, permission: Permission) -> bool {
        match self.reach(permission) {
            Reach::All => true,
            Reach::Only(namespaces) => !permission.is_global && !namespaces.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_JOBS: Permission = Permission::new("jobs", Action::Read);
    const WRITE_JOBS: Permission = Permission::new("jobs", Action::Write);
    const METRICS: Permission = Permission::global("metrics", Action::Read);

    fn grants(texts: &[&str]) -> Grants {
        Grants::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn scope_reads_what_it_shows() {
        for text in ["jobs:read", "jobs:*", "*:read", "*:*", "jobs:write@shop", "*:*@a b"] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for text in
            ["", "jobs", "jobs:", ":read", "jobs:raed", "Jobs:read", "jobs:read@", "a b:read", "jobs:read:x"]
        {
            assert!(text.parse::<Grant>().is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_was_not_granted() {
        assert!(!Grants::default().allow(READ_JOBS));
        assert!(!grants(&["jobs:read"]).allow(WRITE_JOBS));
        assert!(!grants(&["workflows:*"]).allow(READ_JOBS));
        assert!(Grants::everything().allow(METRICS));
    }

    #[test]
    fn grant_of_a_namespace_holds_there_and_not_for_what_has_none() {
        let some = grants(&["*:*@a", "jobs:read@b"]);
        assert!(some.allow_in(READ_JOBS, "a") && some.allow_in(READ_JOBS, "b"));
        assert!(!some.allow_in(WRITE_JOBS, "b") && !some.allow_in(READ_JOBS, "c"));
        assert!(!some.allow(METRICS));
        assert_eq!(some.reach(READ_JOBS), Reach::Only(["a".to_owned(), "b".to_owned()].into()));
        assert_eq!(grants(&["*:*@a", "jobs:read"]).reach(READ_JOBS), Reach::All);
    }
}
