//! What an unquoted word of a file means. Kubernetes reads files as YAML 1.1, and so does this: `yes`
//! and `off` are booleans, `010` is 8, `0x10` is 16, `1_000` is 1000, and `50.0` is a whole number.
//!
//! Only what a word is, not whether that may stand where it does: `schema` decides.

/// A whole number up to here is exact as a float.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The meaning of an unquoted word.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Word {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

impl Word {
    pub(super) fn of(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
                return Self::Bool(true);
            }
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off"
            | "OFF" => return Self::Bool(false),
            ".nan" | ".NaN" | ".NAN" => return Self::Float(f64::NAN),
            _ => {}
        }
        if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) {
            return Self::Text;
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_negative = text.starts_with('-');
        if matches!(digits, ".inf" | ".Inf" | ".INF") {
            return Self::Float(if is_negative { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        let plain = digits.replace('_', "");
        let whole = whole(&plain).map(i128::from);
        let decimal = || plain.parse::<f64>().ok().filter(|_| is_decimal(&plain));
        match (whole, is_negative) {
            (Some(number), true) => Self::Int(-number),
            (Some(number), false) => Self::Int(number),
            (None, true) => decimal().map_or(Self::Text, |number| Self::Float(-number)),
            (None, false) => decimal().map_or(Self::Text, Self::Float),
        }
    }

    /// The one spelling that everything behind the reader knows; `None` where a word stays as it is.
    pub(super) fn canonical(self) -> Option<String> {
        match self {
            Self::Bool(value) => Some(value.to_string()),
            Self::Int(number) => Some(number.to_string()),
            Self::Float(number) if number.fract() == 0.0 && number.abs() < EXACT_MAX => {
                Some(format!("{number:.0}").replace("-0", "0"))
            }
            Self::Float(number) if (1e-6..1e15).contains(&number.abs()) => Some(number.to_string()),
            // Written out, it could have hundreds of digits.
            Self::Float(number) if number.is_finite() => Some(format!("{number:e}")),
            Self::Float(_) | Self::Null | Self::Text => None,
        }
    }
}

/// A whole number without its sign, by its prefix in base 2, 8, 10 or 16.
fn whole(digits: &str) -> Option<u64> {
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let valid = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(base));
    valid.then(|| u64::from_str_radix(digits, base).ok()).flatten()
}

/// Digits with at most one dot among or before them, and perhaps an exponent.
fn is_decimal(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (before, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    all_digits(before)
        && all_digits(behind)
        && !(before.is_empty() && behind.is_empty())
        && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_kubernetes_takes_them_for() {
        for (text, expected) in [
            ("yes", Word::Bool(true)),
            ("On", Word::Bool(true)),
            ("n", Word::Bool(false)),
            ("OFF", Word::Bool(false)),
            ("yEs", Word::Text),
            ("~", Word::Null),
            ("10", Word::Int(10)),
            ("+10", Word::Int(10)),
            ("-0x10", Word::Int(-16)),
            ("010", Word::Int(8)),
            ("0o17", Word::Int(15)),
            ("0b101", Word::Int(5)),
            ("1_000", Word::Int(1_000)),
            ("08", Word::Float(8.0)),
            ("50.0", Word::Float(50.0)),
            ("1e+06", Word::Float(1e6)),
            (".5", Word::Float(0.5)),
            ("5.", Word::Float(5.0)),
            ("-.inf", Word::Float(f64::NEG_INFINITY)),
            ("v1", Word::Text),
            ("1.2.3", Word::Text),
            ("10.0.0.0/8", Word::Text),
            ("1e", Word::Text),
            ("0x", Word::Text),
            ("-", Word::Text),
            (".", Word::Text),
            ("5s", Word::Text),
            ("1:30", Word::Text),
        ] {
            assert_eq!(Word::of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_number_has_one_spelling_behind_the_reader() {
        for (text, expected) in [
            ("0x10", "16"),
            ("010", "8"),
            ("50.0", "50"),
            ("1e+06", "1000000"),
            ("-0.0", "0"),
            ("0.250", "0.25"),
            ("1e300", "1e300"),
            ("yes", "true"),
        ] {
            let canonical = Word::of(text).canonical().unwrap();
            assert_eq!(canonical, expected, "{text}");
            assert_eq!(Word::of(&canonical).canonical().as_deref(), Some(expected), "stays so");
        }
        assert_eq!(Word::of(".inf").canonical(), None);
        assert_eq!(Word::of("v1").canonical(), None);
    }
}
