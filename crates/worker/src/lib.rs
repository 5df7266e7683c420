//! What handlers are written against: context, failures, registry.
