//! Reading the Prometheus text format 0.0.4: strict, bounded, borrowing from the text.
//!
//! It knows the format and nothing about Istio. A line that does not follow the format is an error
//! with its reason – the caller rejects the whole scrape then, as Prometheus does, because a
//! half-read scrape would look like traffic that stopped.

use std::borrow::Cow;

use crate::limits;

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`limits::LINE_BYTES_MAX`].
    #[error("longer than {} bytes", limits::LINE_BYTES_MAX)]
    TooLong,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// Does not begin with a metric name.
    #[error("no metric name at its start")]
    Name,
    /// A label name is missing or malformed.
    #[error("a label has no valid name")]
    LabelName,
    /// A label value is not quoted, not ended or has an unknown escape.
    #[error("a label value is not a complete quoted string")]
    LabelValue,
    /// One label twice.
    #[error("a label is given twice")]
    LabelTwice,
    /// More than [`limits::LABELS_MAX`].
    #[error("more than {} labels", limits::LABELS_MAX)]
    Labels,
    /// No number after the series.
    #[error("no number after the series")]
    Value,
    /// Something follows the number that is no timestamp.
    #[error("text after the number that is no timestamp in milliseconds")]
    Timestamp,
}

/// An error with the line it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ExpositionError {
    /// 1-based.
    pub line: usize,
    /// What is wrong.
    pub reason: LineError,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Metric name, with `_bucket`, `_sum` or `_count` on histograms.
    pub name: &'a str,
    /// Labels in the order written, unescaped.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Its value; may be NaN or infinite.
    pub value: f64,
    /// Milliseconds since 1970, where given.
    pub timestamp: Option<i64>,
}

impl Sample<'_> {
    /// The value of a label; empty where it is absent, as Prometheus has it.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// All samples of a text.
///
/// # Errors
/// The first line that does not follow the format.
pub fn parse(text: &str) -> Result<Vec<Sample<'_>>, ExpositionError> {
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match parse_line(line) {
            Ok(Some(sample)) => samples.push(sample),
            Ok(None) => {}
            Err(reason) => return Err(ExpositionError { line: index + 1, reason }),
        }
    }
    Ok(samples)
}

/// One line; `None` for comments (`# HELP`, `# TYPE`) and empty lines.
///
/// # Errors
/// What is wrong with it.
pub fn parse_line(line: &str) -> Result<Option<Sample<'_>>, LineError> {
    if line.len() > limits::LINE_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    let line = trim(line);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = metric_name(line)?;
    let mut rest = trim_start(rest);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = parse_labels(inner, &mut labels)?;
    }
    let (value, timestamp) = parse_number(rest)?;
    Ok(Some(Sample { name, labels, value, timestamp }))
}

/// The metric name at the start of a line that is no comment, without looking at the rest.
///
/// # Errors
/// [`LineError::Name`].
pub fn metric_name(line: &str) -> Result<(&str, &str), LineError> {
    let end = line
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'))
        .unwrap_or(line.len());
    let valid = line.bytes().next().is_some_and(|first| !first.is_ascii_digit()) && end > 0;
    if valid { Ok(line.split_at(end)) } else { Err(LineError::Name) }
}

/// Splits a line into its series (name and labels as written) and its value, without checking the
/// series: for lines whose series has been parsed before.
///
/// # Errors
/// [`LineError::Value`] or [`LineError::Timestamp`].
pub fn split_series(line: &str) -> Result<(&str, f64), LineError> {
    // A value has no brace in it, so the last one ends the labels whatever their values hold.
    let end = match line.rfind('}') {
        Some(brace) => brace + 1,
        None => line.find([' ', '\t']).ok_or(LineError::Value)?,
    };
    let (series, rest) = line.split_at(end);
    parse_number(rest).map(|(value, _)| (series, value))
}

/// The labels after `{`; gives what follows `}`.
fn parse_labels<'a>(
    mut rest: &'a str,
    labels: &mut Vec<(&'a str, Cow<'a, str>)>,
) -> Result<&'a str, LineError> {
    loop {
        rest = trim_start(rest);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = label_name(rest)?;
        let after = trim_start(after).strip_prefix('=').ok_or(LineError::LabelName)?;
        let after = trim_start(after).strip_prefix('"').ok_or(LineError::LabelValue)?;
        let (value, after) = quoted(after)?;
        if labels.iter().any(|(known, _)| *known == name) {
            return Err(LineError::LabelTwice);
        }
        if labels.len() == limits::LABELS_MAX {
            return Err(LineError::Labels);
        }
        labels.push((name, value));
        rest = trim_start(after);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err(LineError::LabelName),
        }
    }
}

fn label_name(text: &str) -> Result<(&str, &str), LineError> {
    let end = text
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_'))
        .unwrap_or(text.len());
    let valid = text.bytes().next().is_some_and(|first| !first.is_ascii_digit()) && end > 0;
    if valid { Ok(text.split_at(end)) } else { Err(LineError::LabelName) }
}

/// A label value after its opening quote, and what follows its closing one.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), LineError> {
    let plain = text.find(['"', '\\']).ok_or(LineError::LabelValue)?;
    if text.as_bytes()[plain] == b'"' {
        return Ok((Cow::Borrowed(&text[..plain]), &text[plain + 1..]));
    }
    let mut value = text[..plain].to_owned();
    let mut characters = text[plain..].char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Cow::Owned(value), &text[plain + at + 1..])),
            '\\' => match characters.next() {
                Some((_, '\\')) => value.push('\\'),
                Some((_, '"')) => value.push('"'),
                Some((_, 'n')) => value.push('\n'),
                _ => return Err(LineError::LabelValue),
            },
            other => value.push(other),
        }
    }
    Err(LineError::LabelValue)
}

/// The value and an optional timestamp.
fn parse_number(rest: &str) -> Result<(f64, Option<i64>), LineError> {
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let value = words.next().ok_or(LineError::Value)?;
    let value = value.parse().map_err(|_| LineError::Value)?;
    let timestamp = match words.next() {
        Some(word) => Some(word.parse().map_err(|_| LineError::Timestamp)?),
        None => None,
    };
    if words.next().is_some() { Err(LineError::Timestamp) } else { Ok((value, timestamp)) }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\r'])
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sample_with_labels_value_and_timestamp_is_read() {
        let line =
            r#"istio_requests_total{reporter="source", response_code = "200",} 17 1700000000000"#;
        let sample = parse_line(line).unwrap().unwrap();
        assert_eq!(sample.name, "istio_requests_total");
        assert_eq!(sample.label("response_code"), "200");
        assert_eq!(sample.label("absent"), "");
        assert_eq!((sample.value, sample.timestamp), (17.0, Some(1_700_000_000_000)));
    }

    #[test]
    fn escapes_in_label_values_are_undone() {
        let sample = parse_line(r#"a{b="x\"y\\z\n}"} 1"#).unwrap().unwrap();
        assert_eq!(sample.label("b"), "x\"y\\z\n}");
    }

    #[test]
    fn comments_and_empty_lines_are_no_samples() {
        for line in ["", "  ", "# TYPE a counter", "#"] {
            assert_eq!(parse_line(line), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn special_values_are_numbers() {
        for (text, infinite) in [("a +Inf", true), ("a -Inf", true), ("a NaN", false)] {
            let value = parse_line(text).unwrap().unwrap().value;
            assert_eq!((value.is_infinite(), value.is_nan()), (infinite, !infinite), "{text}");
        }
    }

    #[test]
    fn every_departure_from_the_format_has_its_reason() {
        let cases = [
            ("1a 2", LineError::Name),
            ("{a=\"b\"} 2", LineError::Name),
            ("a", LineError::Value),
            ("a x", LineError::Value),
            ("a 1 x", LineError::Timestamp),
            ("a 1 2 3", LineError::Timestamp),
            ("a{b=\"c\" 1", LineError::LabelName),
            ("a{=\"c\"} 1", LineError::LabelName),
            ("a{b=c} 1", LineError::LabelValue),
            ("a{b=\"c} 1", LineError::LabelValue),
            ("a{b=\"\\t\"} 1", LineError::LabelValue),
            ("a{b=\"c\",b=\"d\"} 1", LineError::LabelTwice),
        ];
        for (line, reason) in cases {
            assert_eq!(parse_line(line), Err(reason), "{line}");
        }
        let wide: String = (0..=limits::LABELS_MAX).map(|n| format!("l{n}=\"\",")).collect();
        assert_eq!(parse_line(&format!("a{{{wide}}} 1")), Err(LineError::Labels));
        let long = "a".repeat(limits::LINE_BYTES_MAX + 1);
        assert_eq!(parse_line(&long), Err(LineError::TooLong));
        assert_eq!(parse("a 1\nb\n").unwrap_err().line, 2);
    }

    #[test]
    fn a_known_series_is_split_off_without_parsing_it() {
        let line = r#"a{b="} 9 "} 3.5 12"#;
        assert_eq!(split_series(line), Ok((r#"a{b="} 9 "}"#, 3.5)));
        assert_eq!(split_series("up 1"), Ok(("up", 1.0)));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "[ -~\\n\\t\"\\\\{}=,#é]{0,200}") {
            let _ = parse(&text);
            for line in text.lines() {
                let _ = split_series(line);
            }
        }

        #[test]
        fn any_label_value_survives_escaping(value in "\\PC{0,40}", number in any::<i32>()) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let line = format!("m{{v=\"{escaped}\"}} {number}");
            let sample = parse_line(&line).unwrap().unwrap();
            prop_assert_eq!(sample.label("v"), value.as_str());
            let (series, split) = split_series(&line).unwrap();
            prop_assert!(series.ends_with('\u{7d}'), "the whole series");
            prop_assert_eq!(split, sample.value);
        }
    }
}
