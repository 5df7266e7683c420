//! How the contract's methods become pieces of work for a driver. Textual, because each driver has its own types.

/// Work that may have to run twice owns its arguments: each run gets a handle of its own.
macro_rules! work {
    ([$($argument:ident),*] $db:ident, $now:ident, $effects:ident => $body:expr) => {{
        $(let $argument = std::sync::Arc::new($argument);)*
        move |$db, $now, $effects| {
            $(let $argument = std::sync::Arc::clone(&$argument);)*
            Box::pin(async move { let _ = (&$now, &$effects); $body })
        }
    }};
}

/// Work that only looks, once.
macro_rules! look {
    ([$($argument:ident),*] $db:ident, $now:ident => $body:expr) => {
        move |$db, $now| Box::pin(async move { $(let $argument = $argument;)* let _ = &$now; $body })
    };
}
