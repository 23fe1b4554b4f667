//! Names that are not shown: on a screen that others see, users are told apart and not named.

use super::App;

impl App {
    /// A name as it may be shown: where names are hidden, one that says only which are the same.
    #[must_use]
    pub fn private(&self, name: &str) -> String {
        if !self.privacy || name.is_empty() {
            return name.to_owned();
        }
        // FNV-1a (Fowler, Noll, Vo 1991): enough to tell names apart on a screen.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("x{:05x}", hash >> 44)
    }

    /// A sentence as it may be shown: where names are hidden, without those of users.
    #[must_use]
    pub fn hidden(&self, sentence: &str) -> String {
        if !self.privacy {
            return sentence.to_owned();
        }
        let word = |word: &str| {
            let name = word.trim_matches(|c: char| !c.is_alphanumeric());
            if self.users.contains(name) {
                word.replace(name, &self.private(name))
            } else {
                word.to_owned()
            }
        };
        sentence.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }
}
