//! The texts of a column: checked once for all of them, then cut without looking at a byte again where all are ASCII.
#![allow(unsafe_code, reason = "ASCII cut anywhere is still text, which the compiler cannot know")]

use std::ops::Range;

/// Texts one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    text: &'a str,
    ascii: bool,
}

impl<'a> Text<'a> {
    /// # Errors
    /// The bytes are not UTF-8.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, String> {
        if is_ascii(bytes) {
            // SAFETY: ASCII is UTF-8.
            return Ok(Text { text: unsafe { std::str::from_utf8_unchecked(bytes) }, ascii: true });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        Ok(Text { text, ascii: false })
    }

    /// The text between two places; `None` where they are outside or inside a character.
    #[inline]
    pub(crate) fn get(self, range: Range<usize>) -> Option<&'a str> {
        if self.ascii {
            let bytes = self.text.as_bytes().get(range)?;
            // SAFETY: every part of ASCII is UTF-8.
            return Some(unsafe { std::str::from_utf8_unchecked(bytes) });
        }
        self.text.get(range)
    }
}

/// What the standard library's is, in words that WebAssembly has: 64 bits, or 128 where SIMD is on.
fn is_ascii(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let (blocks, left) = words.as_chunks::<8>();
    let high = |words: &[[u8; 8]]| words.iter().fold(0, |all, word| all | u64::from_le_bytes(*word));
    const HIGH: u64 = 0x8080_8080_8080_8080;
    rest.is_ascii() && high(left) & HIGH == 0 && blocks.iter().all(|block| high(block) & HIGH == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_is_told_from_the_rest_at_every_place() {
        for length in 0..200 {
            let mut bytes = vec![b'a'; length];
            assert!(is_ascii(&bytes));
            for at in 0..length {
                bytes[at] = 0x80;
                assert!(!is_ascii(&bytes), "{at} of {length}");
                bytes[at] = b'a';
            }
        }
    }

    #[test]
    fn a_text_is_cut_at_characters_only() {
        for text in ["abc", "aäc"] {
            let texts = Text::new(text.as_bytes()).unwrap();
            for from in 0..6 {
                for to in 0..6 {
                    assert_eq!(texts.get(from..to), text.get(from..to), "{from}..{to}");
                }
            }
        }
        assert!(Text::new(b"a\xff").is_err());
    }
}
