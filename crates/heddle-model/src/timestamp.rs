//! Moments as people write them (RFC 3339), as seconds since the Unix epoch. No clock is read here.

/// Days from the epoch to the first day of this year's March, by Howard Hinnant's algorithm for the
/// proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days_from_civil`]: year, month and day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// A moment's year, month and day, and the seconds of that day (UTC).
#[must_use]
pub fn civil(unix: u64) -> (i64, i64, i64, u64) {
    let days = i64::try_from(unix / 86_400).unwrap_or(i64::MAX / 4);
    let (year, month, day) = civil_from_days(days);
    (year, month, day, unix % 86_400)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads `2026-11-29T13:00:00Z` or `2026-11-29T14:00:00+01:00` (RFC 3339 §5.6). What is finer than a second
/// is rounded down; a moment before 1970 is 0.
///
/// # Errors
/// What would be right.
pub fn parse(text: &str) -> Result<u64, String> {
    read(text).ok_or_else(|| {
        format!(
            "`{}` is no moment: write it as RFC 3339 has it, e.g. \"2026-12-24T18:00:00Z\"",
            text.chars().take(60).collect::<String>()
        )
    })
}

fn read(text: &str) -> Option<u64> {
    let mut rest = Digits(text.as_bytes());
    let (year, month, day) = (rest.number(4)?, rest.after(b"-")?, rest.after(b"-")?);
    let (hour, minute, second) = (rest.after(b"Tt ")?, rest.after(b":")?, rest.after(b":")?);
    rest.fraction()?;
    let offset = rest.offset()?;
    let valid = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        // A leap second is the next one here, as in POSIX.
        && second <= 60;
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    valid.then(|| u64::try_from(seconds).unwrap_or(0))
}

/// What is left of a text.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        let all = number.iter().all(u8::is_ascii_digit);
        let value = number.iter().fold(0, |value, digit| value * 10 + i64::from(digit & 15));
        all.then_some(value)
    }

    /// Two digits behind one of these bytes.
    fn after(&mut self, before: &[u8]) -> Option<i64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        if before.contains(first) { self.number(2) } else { None }
    }

    fn fraction(&mut self) -> Option<()> {
        let Some(rest) = self.0.strip_prefix(b".") else { return Some(()) };
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.0 = &rest[digits..];
        (digits > 0).then_some(())
    }

    /// Seconds east of Greenwich; the text ends behind it.
    fn offset(&mut self) -> Option<i64> {
        match self.0 {
            [b'Z' | b'z'] => Some(0),
            [sign @ (b'+' | b'-'), rest @ ..] => {
                let mut rest = Digits(rest);
                let (hours, minutes) = (rest.number(2)?, rest.after(b":")?);
                let seconds = hours * 3_600 + minutes * 60;
                let valid = hours < 24 && minutes < 60 && rest.0.is_empty();
                valid.then_some(if *sign == b'-' { -seconds } else { seconds })
            }
            _ => None,
        }
    }
}

/// Writes a moment as [`parse`] reads it, in UTC.
#[must_use]
pub fn format(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX).min(253_402_300_799);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_as_rfc_3339_has_them() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-29T13:46:31Z", 1_795_959_991),
            ("2026-11-29T14:46:31.999+01:00", 1_795_959_991),
            ("2026-11-29t08:46:31-05:00", 1_795_959_991),
            ("1969-12-31T23:59:59Z", 0),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "tomorrow",
            "2026-11-29",
            "2026-11-29T13:46Z",
            "2026-11-29T13:46:31",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-29T24:00:00Z",
            "2026-11-29T13:46:31.Z",
            "2026-11-29T13:46:31Z ",
            "2026-11-29T13:46:31+1:00",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in 0u64..253_402_300_799) {
            prop_assert_eq!(parse(&format(seconds)), Ok(seconds));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,40}") {
            let _read = parse(&text);
        }
    }
}
