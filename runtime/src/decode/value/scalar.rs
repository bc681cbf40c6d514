//! Decimals and integers of any length from the bytes of one value.
//!
//! Promises the exact value or `None`: what does not fit is never rounded, wrapped or clipped. Knows nothing of columns
//! and settings.

use crate::decode::format::json::number::int64;

const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut at = 1;
    while at < 39 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// 10 to the power of `n`, up to 38.
#[inline]
pub(crate) fn power(n: u32) -> Option<i128> {
    POWERS.get(n as usize).copied()
}

/// Decimal digits taken apart: `digits` × 10^-`scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digits {
    pub(crate) unscaled: i128,
    pub(crate) scale: i32,
    /// digits between the first and the last that is not zero
    pub(crate) significant: u32,
}

/// The digits of a decimal number in text, with sign, fraction and exponent; up to 38 of them count.
#[inline]
pub(crate) fn digits(text: &[u8]) -> Option<Digits> {
    let (negative, rest) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let (mut high, mut low) = (0u128, 0u64);
    let (mut count, mut scale, mut zeros, mut seen) = (0u32, 0i32, 0u32, false);
    let mut point = false;
    let mut exponent = 0i32;
    let mut low_count = 0u32;
    for (at, &byte) in rest.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                seen = true;
                let digit = byte - b'0';
                scale += i32::from(point);
                if digit == 0 && count == 0 {
                    continue;
                }
                count += 1;
                zeros = if digit == 0 { zeros + 1 } else { 0 };
                if count > 38 {
                    // past 38 digits only zeros change nothing
                    if digit != 0 {
                        return None;
                    }
                    scale -= 1;
                    count -= 1;
                    zeros -= 1;
                    continue;
                }
                low = low * 10 + u64::from(digit);
                low_count += 1;
                if low_count == 18 {
                    high = high * 1_000_000_000_000_000_000 + u128::from(low);
                    low = 0;
                    low_count = 0;
                }
            }
            b'.' if !point => point = true,
            b'e' | b'E' if seen => {
                exponent = i32::try_from(int64(rest.get(at + 1..).map(strip_plus)?)?).ok()?;
                if exponent.abs() > 10_000 {
                    return None;
                }
                break;
            }
            _ => return None,
        }
    }
    if !seen {
        return None;
    }
    let unscaled = high * u128::try_from(power(low_count)?).ok()? + u128::from(low);
    let unscaled = i128::try_from(unscaled).ok()?;
    let significant = count - zeros.min(count);
    Some(Digits { unscaled: if negative { -unscaled } else { unscaled }, scale: scale - exponent, significant })
}

fn strip_plus(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"+").unwrap_or(text)
}

impl Digits {
    /// The same number with `scale` fractional digits and at most `precision` digits in all.
    #[inline]
    pub(crate) fn rescale(self, precision: u8, scale: i8) -> Option<i128> {
        let shift = i32::from(scale) - self.scale;
        let n = if self.unscaled == 0 || shift == 0 {
            self.unscaled
        } else if shift > 0 {
            self.unscaled.checked_mul(power(u32::try_from(shift).ok()?)?)?
        } else {
            let by = power(shift.unsigned_abs())?;
            if self.unscaled % by != 0 {
                return None;
            }
            self.unscaled / by
        };
        (n.unsigned_abs() < power(u32::from(precision))?.unsigned_abs()).then_some(n)
    }
}

/// A two's complement big-endian integer of at most 16 significant bytes.
#[inline]
pub(crate) fn big_endian(bytes: &[u8]) -> Option<i128> {
    let (&first, _) = bytes.split_first()?;
    let fill = if first & 0x80 != 0 { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (sign, low) = bytes.split_at_checked(extra)?;
    if sign.iter().any(|&b| b != fill) || (extra > 0 && low.first()? & 0x80 != fill & 0x80) {
        return None;
    }
    let mut n = if fill == 0 { 0i128 } else { -1 };
    for &b in low {
        n = n << 8 | i128::from(b);
    }
    Some(n)
}

/// Writes a two's complement big-endian integer of any length, with `scale` fractional digits.
pub(crate) fn write_big_endian(bytes: &[u8], scale: usize, out: &mut Vec<u8>) {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    // magnitude in 32-bit limbs, least significant first
    let mut limbs = Vec::new();
    for chunk in bytes.rchunks(4) {
        let mut limb = if negative && chunk.len() < 4 { u32::MAX } else { 0 };
        for &b in chunk {
            limb = limb << 8 | u32::from(b);
        }
        limbs.push(limb);
    }
    if negative {
        let mut carry = true;
        for limb in &mut limbs {
            let (n, over) = (!*limb).overflowing_add(u32::from(carry));
            *limb = n;
            carry = over;
        }
    }
    let mut text = Vec::new();
    while limbs.iter().any(|&l| l != 0) {
        let mut rest = 0u64;
        for limb in limbs.iter_mut().rev() {
            let n = rest << 32 | u64::from(*limb);
            *limb = (n / 10) as u32;
            rest = n % 10;
        }
        text.push(b'0' + rest as u8);
    }
    while text.len() <= scale {
        text.push(b'0');
    }
    if negative {
        out.push(b'-');
    }
    for (at, digit) in text.iter().rev().enumerate() {
        if at + scale == text.len() {
            out.push(b'.');
        }
        out.push(*digit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        let as_12_2 = |t: &str| digits(t.as_bytes()).and_then(|d| d.rescale(12, 2));
        assert_eq!(as_12_2("10436.42"), Some(1_043_642));
        assert_eq!(as_12_2("-0.10"), Some(-10));
        assert_eq!(as_12_2("1.0E10"), None);
        assert_eq!(as_12_2("1.0E9"), Some(100_000_000_000));
        assert_eq!(as_12_2("0.001"), None);
        assert_eq!(as_12_2("1.5000"), Some(150));
        assert_eq!(as_12_2("12345678901"), None);
        assert_eq!(as_12_2(""), None);
        assert_eq!(as_12_2("1.2.3"), None);
        assert_eq!(digits(b"0.00120").unwrap().significant, 2);
        assert_eq!(digits(b"99999999999999999999999999999999999999").unwrap().rescale(38, 0), power(38).map(|n| n - 1));
        assert_eq!(digits(b"-1.23E-2").unwrap().rescale(5, 4), Some(-123));
    }

    #[test]
    fn big_endian_integers_of_any_length() {
        assert_eq!(big_endian(&[0x0f, 0xec, 0xba]), Some(1_043_642));
        assert_eq!(big_endian(&[0xff]), Some(-1));
        assert_eq!(big_endian(&[0; 20]), Some(0));
        assert_eq!(big_endian(&[1; 17]), None);
        let text = |bytes: &[u8], scale| {
            let mut out = Vec::new();
            write_big_endian(bytes, scale, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&[0x0f, 0xec, 0xba], 2), "10436.42");
        assert_eq!(text(&[0xff], 3), "-0.001");
        assert_eq!(text(&[0], 0), "0");
        let n = i128::MIN + 12345;
        assert_eq!(text(&n.to_be_bytes(), 0), n.to_string());
    }
}
