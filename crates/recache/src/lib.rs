//! Background work that keeps caches right: the library to embed.
