//! Choices that a template makes by a word.

/// One of several, each with its word.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// All of them.
    const WORDS: &'static [Self];

    /// The word for it in a template.
    fn as_word(self) -> &'static str;
}

/// An enumeration whose members are words of the template.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$member:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$member])* $variant),*
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The word for it in a template.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),*
                }
            }
        }

        impl $crate::template::words::Word for $name {
            const WORDS: &'static [Self] = &Self::ALL;

            fn as_word(self) -> &'static str {
                self.word()
            }
        }
    };
}

pub(super) use words;
