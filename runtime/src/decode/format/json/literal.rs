//! Bytes that are looked for at one place again and again: the names of a row's members.

/// Bytes to compare with, eight at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Literal {
    /// each with the bits that count
    words: Vec<(u64, u64)>,
    len: usize,
}

impl Literal {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let words = bytes.chunks(8).map(|chunk| {
            let (mut word, mut mask) = ([0; 8], [0; 8]);
            for (at, byte) in chunk.iter().enumerate() {
                word[at] = *byte;
                mask[at] = 0xff;
            }
            (u64::from_le_bytes(word), u64::from_le_bytes(mask))
        });
        Literal { words: words.collect(), len: bytes.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// True when `rest` begins with it.
    #[inline]
    pub(crate) fn begins(&self, rest: &[u8]) -> bool {
        if rest.len() < self.words.len() * 8 {
            let there = self.words.iter().zip(rest.chunks(8)).all(|((word, mask), chunk)| {
                let mut padded = [0; 8];
                padded.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
                (u64::from_le_bytes(padded) ^ word) & mask == 0
            });
            return there && rest.len() >= self.len;
        }
        let mut rest = rest;
        for (word, mask) in &self.words {
            let Some((chunk, after)) = rest.split_first_chunk::<8>() else { return false };
            if (u64::from_le_bytes(*chunk) ^ word) & mask != 0 {
                return false;
            }
            rest = after;
        }
        true
    }
}
