//! Values that Rust's own types do not name: decimals, dates and times.

use std::fmt;

/// An exact decimal number of at most `P` digits, `S` of them after the point: `decimal(P,S)` of the table.
///
/// As input it takes every column whose numbers it can hold unchanged, as output it is that column type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal<const P: u8, const S: u8>(
    /// the number times 10 to the power `S`
    pub i128,
);

impl<const P: u8, const S: u8> Decimal<P, S> {
    /// The number `unscaled` / 10 to the power `S`; `None` where it has more than `P` digits.
    pub fn checked(unscaled: i128) -> Option<Self> {
        fits(unscaled, P).then_some(Decimal(unscaled))
    }

    /// `self × factor`; `None` where it does not fit an `i128`.
    pub fn checked_mul(self, factor: i64) -> Option<i128> {
        match (i32::try_from(self.0), i32::try_from(factor)) {
            (Ok(a), Ok(b)) => Some(i128::from(i64::from(a) * i64::from(b))),
            _ => wide_mul(self.0, factor),
        }
    }

    /// The same number with other digits; `None` where a digit would be lost.
    pub fn rescale<const Q: u8, const T: u8>(self) -> Option<Decimal<Q, T>> {
        let number = AnyDecimal { unscaled: self.0, scale: S };
        number.to_scale(T).filter(|n| fits(*n, Q)).map(Decimal)
    }
}

impl<const P: u8, const S: u8> fmt::Display for Decimal<P, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        AnyDecimal { unscaled: self.0, scale: S }.fmt(f)
    }
}

/// An exact decimal number whose scale is that of the table: for modules that take any decimal column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AnyDecimal {
    /// the number times 10 to the power `scale`
    pub unscaled: i128,
    /// digits after the point
    pub scale: u8,
}

impl AnyDecimal {
    /// The unscaled number at another scale; `None` where a digit would be lost or it does not fit.
    pub fn to_scale(self, scale: u8) -> Option<i128> {
        if scale >= self.scale {
            return 10_i128.checked_pow(u32::from(scale - self.scale))?.checked_mul(self.unscaled);
        }
        let divisor = 10_i128.checked_pow(u32::from(self.scale - scale))?;
        (self.unscaled % divisor == 0).then(|| self.unscaled / divisor)
    }
}

impl fmt::Display for AnyDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0width$}", self.unscaled.unsigned_abs(), width = scale + 1);
        let (whole, part) = digits.split_at(digits.len() - scale);
        let sign = if self.unscaled < 0 { "-" } else { "" };
        match part {
            "" => write!(f, "{sign}{whole}"),
            _ => write!(f, "{sign}{whole}.{part}"),
        }
    }
}

/// WebAssembly multiplies 64 bits by an instruction, 128 by a function, and checks the latter by a slow one. Kept apart,
/// lest the compiler merge them.
#[cold]
#[inline(never)]
fn wide_mul(unscaled: i128, factor: i64) -> Option<i128> {
    match i64::try_from(unscaled) {
        Ok(small) => Some(i128::from(small) * i128::from(factor)),
        Err(_) => unscaled.checked_mul(i128::from(factor)),
    }
}

/// True where `unscaled` has at most `precision` digits.
pub(crate) fn fits(unscaled: i128, precision: u8) -> bool {
    10_u128.checked_pow(u32::from(precision)).is_none_or(|bound| unscaled.unsigned_abs() < bound)
}

/// A day: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Date(pub i32);

/// A moment: microseconds since 1970-01-01 00:00 UTC. A `TIMESTAMP` of MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A time of the calendar and clock, without a zone: microseconds since 1970-01-01 00:00. A `DATETIME` of MySQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DateTime(pub i64);

const MICROS_A_DAY: i64 = 86_400_000_000;

impl Date {
    /// Year, month (1 to 12) and day (1 to 31) of the Gregorian calendar.
    pub fn year_month_day(self) -> (i64, u32, u32) {
        // Count from 0000-03-01, so that the leap day is the last of its year.
        let days = i64::from(self.0) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        (year, month as u32, day as u32)
    }

    /// The day as `2026-11-24`.
    pub fn iso(self) -> String {
        let (year, month, day) = self.year_month_day();
        format!("{year:04}-{month:02}-{day:02}")
    }
}

impl Timestamp {
    /// The day in UTC.
    pub fn date(self) -> Date {
        DateTime(self.0).date()
    }
}

impl DateTime {
    /// The day.
    pub fn date(self) -> Date {
        // An i64 of microseconds is at most 107 million days.
        Date(self.0.div_euclid(MICROS_A_DAY) as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_place_in_the_calendar() {
        for (days, iso) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (20_781, "2026-11-24"),
            (-719_528, "0000-01-01"),
            (2_932_896, "9999-12-31"),
        ] {
            assert_eq!(Date(days).iso(), iso);
        }
        assert_eq!(DateTime(-1).date().iso(), "1969-12-31");
    }

    #[test]
    fn decimals_print_and_rescale_exactly() {
        assert_eq!(Decimal::<5, 2>(-5).to_string(), "-0.05");
        assert_eq!(Decimal::<5, 0>(120).to_string(), "120");
        assert_eq!(Decimal::<5, 2>(150).rescale::<5, 1>(), Some(Decimal(15)));
        assert_eq!(Decimal::<5, 2>(155).rescale::<5, 1>(), None);
        assert_eq!(Decimal::<5, 2>(99_999).rescale::<5, 3>(), None);
        assert_eq!(Decimal::<38, 0>(i128::MAX).rescale::<38, 9>(), None);
        assert_eq!(Decimal::<9, 0>(i128::from(i32::MIN)).checked_mul(i64::from(i32::MIN)), Some(1 << 62));
        assert_eq!(Decimal::<20, 0>(i128::from(i64::MIN)).checked_mul(i64::MIN), Some(1 << 126));
        assert_eq!(Decimal::<38, 0>(1 << 70).checked_mul(-4), Some(-(1 << 72)));
        assert_eq!(Decimal::<38, 0>(1 << 70).checked_mul(i64::MAX), None);
    }
}
