//! JSON text without its escapes.
//!
//! Receives text that the [cursor](super::cursor) has stepped over. Promises the characters it stands for, or nothing where half
//! of a surrogate pair stands alone. Writes into a buffer of the caller.

/// The number that four hexadecimal digits write.
pub(crate) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at.checked_add(4)?)?;
    let mut n = 0;
    for &d in digits {
        n = n << 4 | (d as char).to_digit(16)?;
    }
    Some(n)
}

/// Appends text that was found as escaped, without its escapes. `None`: half of a surrogate pair stands alone.
pub(crate) fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    while let Some(slash) = memchr::memchr(b'\\', rest) {
        let (before, after) = rest.split_at_checked(slash)?;
        out.extend_from_slice(before);
        let escape = *after.get(1)?;
        let mut used = 2;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut point = hex4(after, 2)?;
                used = 6;
                if (0xD800..0xDC00).contains(&point) {
                    if after.get(6..8)? != b"\\u" {
                        return None;
                    }
                    let low = hex4(after, 8)?;
                    if !(0xDC00..0xE000).contains(&low) {
                        return None;
                    }
                    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
                    used = 12;
                }
                let mut buffer = [0; 4];
                out.extend_from_slice(char::from_u32(point)?.encode_utf8(&mut buffer).as_bytes());
            }
            other => out.push(other),
        }
        rest = after.get(used..)?;
    }
    out.extend_from_slice(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unescapes() {
        let mut out = Vec::new();
        unescape(br#"a\n\"\/\\\u00e9\uD83D\uDE00z"#, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\n\"/\\é😀z");
        assert!(unescape(br"\uD83D", &mut Vec::new()).is_none());
        assert!(unescape(br"\uDE00", &mut Vec::new()).is_none());
        assert!(unescape(br"\uD83Dx\uDE00", &mut Vec::new()).is_none());
    }
}
