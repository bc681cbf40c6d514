//! Integers from the digits of a JSON number.
//!
//! Promises the exact value or `None`: what does not fit is never rounded, wrapped or clipped.

/// An integer of at most 19 digits.
#[inline]
pub(crate) fn int64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    if digits.len() <= 18 {
        let (mut n, mut rest) = (0i64, digits);
        while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
            n = n * 100_000_000 + eight_digits(*chunk)?;
            rest = after;
        }
        for &d in rest {
            let d = d.wrapping_sub(b'0');
            if d > 9 {
                return None;
            }
            n = n * 10 + i64::from(d);
        }
        return Some(if negative { -n } else { n });
    }
    i64::try_from(int128(text)?).ok()
}

/// Eight digits at once: neighbours are joined to pairs, the pairs to fours, the fours to one number.
#[inline]
fn eight_digits(text: [u8; 8]) -> Option<i64> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let n = u64::from_le_bytes(text) ^ (ONES * b'0' as u64);
    if (n | n.wrapping_add(ONES * 0x76)) & (ONES * 0x80) != 0 {
        return None;
    }
    let n = (n.wrapping_mul(10) + (n >> 8)) & 0x00ff_00ff_00ff_00ff;
    let n = (n.wrapping_mul(100) + (n >> 16)) & 0x0000_ffff_0000_ffff;
    let n = (n.wrapping_mul(10_000) + (n >> 32)) & 0xffff_ffff;
    i64::try_from(n).ok()
}

/// An integer of at most 38 digits.
pub(crate) fn int128(text: &[u8]) -> Option<i128> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() || digits.len() > 38 {
        return None;
    }
    let mut n = 0i128;
    for &d in digits {
        let d = d.wrapping_sub(b'0');
        if d > 9 {
            return None;
        }
        n = n * 10 + i128::from(d);
    }
    Some(if negative { -n } else { n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_or_nothing() {
        assert_eq!(int64(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(int64(b"9223372036854775808"), None);
        for n in
            [0i64, 7, 12_345_678, 123_456_789, 1_735_770_351_627_740, 999_999_999_999_999_999, i64::MAX, -90_000_001]
        {
            assert_eq!(int64(n.to_string().as_bytes()), Some(n));
        }
        assert_eq!(int64(b"1234567x"), None);
        assert_eq!(int64(b"1234/678"), None);
        assert_eq!(int64(b"123\xb45678"), None);
        assert_eq!(int64(b"1.0"), None);
        assert_eq!(int64(b"-"), None);
        assert_eq!(int128(b"18446744073709551615"), Some(u64::MAX.into()));
    }
}
