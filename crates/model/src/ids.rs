//! Identifiers: UUIDv7, one type for each kind of thing, so that they cannot be mixed up.
//!
//! Ids are made by the caller ([`JobId::make`]), which makes a repeated submit of the same id
//! harmless: it finds what the first one stored.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind} id: expected a UUID, optionally prefixed with `{prefix}`")]
pub struct InvalidId {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! id {
    ($name:ident, $kind:literal, $prefix:literal) => {
        #[doc = concat!("The id of ", $kind, ". Shown and read as `", $prefix, "<uuid>`; the prefix may be left out.")]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id: a UUIDv7, so that ids made later sort later.
            pub fn make() -> Self {
                Self(Uuid::now_v7())
            }

            /// Wraps a UUID that came from the store.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text.strip_prefix($prefix).unwrap_or(text))
                    .map(Self)
                    .map_err(|_| InvalidId { text: text.to_owned(), kind: $kind, prefix: $prefix })
            }
        }
    };
}

id!(JobId, "a job's", "job_");
id!(WorkflowId, "a workflow's", "wf_");
id!(BatchId, "a batch's", "batch_");
id!(ViewId, "a view's", "view_");
id!(EventId, "an event's", "evt_");
id!(SubscriberId, "a subscriber's", "sub_");
id!(SessionId, "a worker session's", "ses_");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_reads_what_it_shows_with_and_without_prefix() {
        let id = JobId::make();
        assert_eq!(id.to_string().parse::<JobId>(), Ok(id));
        assert_eq!(id.uuid().to_string().parse::<JobId>(), Ok(id));
    }

    #[test]
    fn id_of_another_kind_is_refused() {
        assert!(WorkflowId::make().to_string().parse::<JobId>().is_err());
    }

    #[test]
    fn later_id_sorts_after_earlier_one() {
        let ids: Vec<JobId> = (0..1000).map(|_| JobId::make()).collect();
        assert!(ids.is_sorted());
    }
}
