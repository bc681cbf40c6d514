//! Dates and times from the bytes of JSON texts, and TIME as the server prints it.
//!
//! Receives bytes of one value, or microseconds. Promises the exact moment or `None`: what lies outside the years 0 to
//! 9999 or between two microseconds is never moved.

use crate::decode::format::json::number::int64;

/// 838:59:59.999999, the largest TIME of MySQL, in microseconds.
pub(crate) const TIME_MICROS_MAX: i64 = ((838 * 60 + 59) * 60 + 59) * 1_000_000 + 999_999;
/// Days and seconds since 1970 of the first day of year 0 and of the day after year 9999.
const DAYS: std::ops::Range<i64> = -719_528..2_932_897;
const SECONDS: std::ops::Range<i64> = -719_528 * 86_400..2_932_897 * 86_400;

fn two(bytes: &[u8], at: usize) -> Option<i64> {
    let pair = bytes.get(at..at + 2)?;
    let mut n = 0;
    for &d in pair {
        if !d.is_ascii_digit() {
            return None;
        }
        n = n * 10 + i64::from(d - b'0');
    }
    Some(n)
}

/// Days since 1970 of a date of the Gregorian calendar.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// Days since 1970, where the date is within the years 0 to 9999.
pub(crate) fn date_of_days(days: i64) -> Option<i32> {
    if DAYS.contains(&days) { i32::try_from(days).ok() } else { None }
}

/// Days since 1970 of `YYYY-MM-DD`, which a `Z` may follow.
pub(crate) fn date_of_text(text: &[u8]) -> Option<i32> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let (day, rest) = leading_date(text)?;
    if rest.is_empty() { date_of_days(day) } else { None }
}

#[inline]
fn leading_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let (date, rest) = text.split_at_checked(10)?;
    if date.get(4) != Some(&b'-') || date.get(7) != Some(&b'-') {
        return None;
    }
    let year = two(date, 0)? * 100 + two(date, 2)?;
    Some((days(year, two(date, 5)?, two(date, 8)?)?, rest))
}

/// Microseconds of a fraction's digits; digits past the sixth must be zero.
#[inline]
fn fraction(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    let mut n = 0;
    for at in 0..digits.len().max(6) {
        let d = digits.get(at).copied().unwrap_or(b'0');
        if !d.is_ascii_digit() {
            return None;
        }
        if at < 6 {
            n = n * 10 + i64::from(d - b'0');
        } else if d != b'0' {
            return None;
        }
    }
    Some(n)
}

/// Microseconds since 1970 of an ISO 8601 date and time; a zone is applied, none is UTC.
#[inline]
pub(crate) fn micros_of_text(text: &[u8]) -> Option<i64> {
    let (day, rest) = leading_date(text)?;
    let mut micros = day * 86_400_000_000;
    if !rest.is_empty() {
        if !matches!(rest.first(), Some(b'T' | b' ')) || rest.get(3) != Some(&b':') {
            return None;
        }
        let (hour, minute) = (two(rest, 1)?, two(rest, 4)?);
        let (second, mut after) =
            if rest.get(6) == Some(&b':') { (two(rest, 7)?, rest.get(9..)?) } else { (0, rest.get(6..)?) };
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        micros += ((hour * 60 + minute) * 60 + second) * 1_000_000;
        if let Some(frac) = after.strip_prefix(b".") {
            let len = frac.iter().take_while(|b| b.is_ascii_digit()).count();
            let (frac, zone) = frac.split_at_checked(len)?;
            micros += fraction(frac)?;
            after = zone;
        }
        micros -= match after {
            b"" | b"Z" => 0,
            [sign @ (b'+' | b'-'), zone @ ..] => {
                let minutes = two(zone, 0)? * 60
                    + match zone.len() {
                        2 => 0,
                        4 => two(zone, 2)?,
                        5 if zone.get(2) == Some(&b':') => two(zone, 3)?,
                        _ => return None,
                    };
                if minutes > 18 * 60 {
                    return None;
                }
                let by = minutes * 60_000_000;
                if *sign == b'-' { -by } else { by }
            }
            _ => return None,
        };
    }
    in_range(micros)
}

/// Microseconds since 1970, where the time is within the years 0 to 9999.
#[inline]
pub(crate) fn in_range(micros: i64) -> Option<i64> {
    SECONDS.contains(&micros.div_euclid(1_000_000)).then_some(micros)
}

/// Microseconds of `[-]H…:MM:SS[.ffffff]`, which a `Z` may follow.
pub(crate) fn time_of_text(text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"Z").unwrap_or(text);
    let (negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let hours = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=3).contains(&hours) {
        return None;
    }
    let (hour, rest) = text.split_at_checked(hours)?;
    if rest.first() != Some(&b':') {
        return None;
    }
    let minute = two(rest, 1)?;
    let (second, after) = match rest.get(3) {
        Some(b':') => (two(rest, 4)?, rest.get(6..)?),
        None => (0, rest.get(3..)?),
        Some(_) => return None,
    };
    if minute > 59 || second > 59 {
        return None;
    }
    let part = if after.is_empty() { 0 } else { fraction(after.strip_prefix(b".")?)? };
    let micros = ((int64(hour)? * 60 + minute) * 60 + second) * 1_000_000 + part;
    let micros = if negative { -micros } else { micros };
    (micros.abs() <= TIME_MICROS_MAX).then_some(micros)
}

/// Writes a TIME as the server prints it. `places`: fractional digits; `None`: none, or six where there is a fraction.
/// Answers `None` where the fraction has more digits than that.
#[inline]
pub(crate) fn write_time(micros: i64, places: Option<u8>, out: &mut Vec<u8>) -> Option<()> {
    if micros.unsigned_abs() > TIME_MICROS_MAX.unsigned_abs() {
        return None;
    }
    let part = (micros.abs() % 1_000_000) as u32;
    let places = match places {
        Some(n) => n.min(6),
        None if part == 0 => 0,
        None => 6,
    };
    let cut = 10u32.pow(6 - u32::from(places));
    if !part.is_multiple_of(cut) {
        return None;
    }
    let seconds = (micros.abs() / 1_000_000) as u32;
    if micros < 0 {
        out.push(b'-');
    }
    let hours = seconds / 3600;
    if hours > 99 {
        out.push(b'0' + (hours / 100) as u8);
    }
    for (sep, n) in [(None, hours), (Some(b':'), seconds / 60 % 60), (Some(b':'), seconds % 60)] {
        out.extend(sep);
        out.extend_from_slice(&[b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8]);
    }
    if places > 0 {
        out.push(b'.');
        let mut unit = 100_000;
        for _ in 0..places {
            out.push(b'0' + (part / unit % 10) as u8);
            unit /= 10;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times() {
        assert_eq!(date_of_text(b"1970-01-01"), Some(0));
        assert_eq!(date_of_text(b"2024-02-29Z"), Some(19_782));
        assert_eq!(date_of_text(b"2023-02-29"), None);
        assert_eq!(date_of_text(b"0000-00-00"), None);
        assert_eq!(date_of_days(2_932_896), date_of_text(b"9999-12-31"));
        assert_eq!(date_of_days(2_932_897), None);
        assert_eq!(micros_of_text(b"2025-01-01T22:25:51.62774Z"), Some(1_735_770_351_627_740));
        assert_eq!(micros_of_text(b"2025-01-01T01:00:00+01:00"), micros_of_text(b"2025-01-01 00:00:00"));
        assert_eq!(micros_of_text(b"2025-01-01T24:00:00Z"), None);
        assert_eq!(micros_of_text(b"2025-01-01T00:00:00.0000001Z"), None);
        assert_eq!(time_of_text(b"-838:59:59.5"), Some(-3_020_399_500_000));
        assert_eq!(time_of_text(b"839:00:00"), None);
    }

    #[test]
    fn times_are_printed_as_the_server_does() {
        let print = |micros, places| {
            let mut out = Vec::new();
            write_time(micros, places, &mut out)?;
            Some(String::from_utf8(out).unwrap())
        };
        assert_eq!(print(37_800_000_000, Some(0)).unwrap(), "10:30:00");
        assert_eq!(print(86_399_856_000, Some(3)).unwrap(), "23:59:59.856");
        assert_eq!(print(-3_020_399_000_000, None).unwrap(), "-838:59:59");
        assert_eq!(print(1, None).unwrap(), "00:00:00.000001");
        assert_eq!(print(1, Some(3)), None);
        assert_eq!(print(TIME_MICROS_MAX + 1, None), None);
    }
}
