//! Recache over HTTP.
