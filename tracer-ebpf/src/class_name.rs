//! Names of Java classes as a JVM tells them with each object it allocates.
//!
//! A name is known by a hash: its address may come to have another one, and
//! two classes of one name are one here, as they are in class histograms.

use crate::frame;

/// Bytes of a name that are read, and that tell names apart. The longest of
/// the JDK's has 103; those of lambdas have an address behind the name.
pub const NAME_BYTES: usize = 256;

/// Names that are kept, of all processes together.
pub const MAX_NAMES: u32 = 8192;

const WORDS: usize = NAME_BYTES / 8;

/// A class's name in the VM's form: `java/lang/String`, `[I`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct ClassName {
    /// How many bytes it has, of which the first [`NAME_BYTES`] were read.
    pub length: u64,
    /// The bytes in order, and zeros behind them.
    pub words: [u64; WORDS],
}

// SAFETY: repr(C), only u64, no padding.
unsafe impl crate::Record for ClassName {}

impl ClassName {
    /// The word that stands for it in a stack. `seed` is the run's, so that a
    /// target cannot aim for collisions.
    #[inline(always)]
    pub fn word(&self, seed: u64) -> u64 {
        let mut hash = mixed(seed, self.length);
        let mut index = 0;
        while index < WORDS {
            hash = mixed(hash, self.words[index]);
            index += 1;
        }
        frame::class_name(mixed(hash, seed))
    }

    /// The bytes that were read.
    pub fn bytes(&self) -> &[u8] {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        &crate::as_bytes(self)[8..][..length.min(NAME_BYTES)]
    }

    /// Whether it has more bytes than were read.
    pub const fn is_cut(&self) -> bool {
        self.length > NAME_BYTES as u64
    }
}

#[inline(always)]
fn mixed(hash: u64, word: u64) -> u64 {
    let hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;

    fn name(text: &str) -> ClassName {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(text.as_bytes().chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        ClassName {
            length: text.len() as u64,
            words,
        }
    }

    #[test]
    fn each_name_has_a_word_of_its_own() {
        let long = "a/".repeat(300);
        let names = ["", "A", "B", "AA", "[I", "a/long/Name", &long];
        let words: std::collections::HashSet<_> =
            names.iter().map(|text| name(text).word(7)).collect();
        assert_eq!(words.len(), names.len());
        assert_eq!(name("A").word(7), name("A").word(7));
        assert_ne!(name("A").word(7), name("A").word(8));
        for word in words {
            assert!(matches!(Frame::of(word), Frame::ClassName { word: own } if own == word));
        }
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(
            (name("[I").bytes(), name("[I").is_cut()),
            (&b"[I"[..], false)
        );
        let long = name(&"x".repeat(300));
        assert_eq!((long.bytes().len(), long.is_cut()), (NAME_BYTES, true));
        let hostile = ClassName {
            length: u64::MAX,
            words: [0; WORDS],
        };
        assert_eq!(hostile.bytes().len(), NAME_BYTES);
    }
}
