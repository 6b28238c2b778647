//! What a call is asked with: its query, and the form that it was posted.

use heddle_model::timestamp;
use heddle_wire::percent::decode_form;

use crate::promql::{QueryError, parser::duration};

/// Names with values, in the order in which they were given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads both.
    ///
    /// # Errors
    /// They are not well encoded.
    pub(super) fn read(query: &str, posted: &[u8]) -> Result<Self, QueryError> {
        let posted = std::str::from_utf8(posted).map_err(|_| malformed())?;
        let mut all = Vec::new();
        // What was posted comes first, as with Prometheus.
        for pair in posted.split('&').chain(query.split('&')).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| decode_form(text).ok_or_else(malformed);
            all.push((decoded(name)?, decoded(value)?));
        }
        Ok(Self(all))
    }

    /// The first of this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All of this name.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A moment, Unix seconds.
    ///
    /// # Errors
    /// It is neither a number nor a moment as RFC 3339 has it.
    pub(super) fn moment(&self, name: &str) -> Result<Option<f64>, QueryError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.parse::<f64>().ok().filter(|number| is_moment(*number));
        let moment = number.or_else(|| timestamp::parse(text).ok().map(|seconds| seconds as f64));
        let reason = || bad(name, &format!("cannot parse \"{text}\" to a valid timestamp"));
        moment.map(Some).ok_or_else(reason)
    }

    /// Seconds, as a number or a duration such as `30s`.
    ///
    /// # Errors
    /// It is neither.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<f64>, QueryError> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let number = text.parse::<f64>().ok().filter(|number| is_moment(*number));
        let seconds = number.or_else(|| duration(text));
        let reason = || bad(name, &format!("cannot parse \"{text}\" to a valid duration"));
        seconds.map(Some).ok_or_else(reason)
    }
}

/// What is wrong with a parameter.
pub(super) fn bad(name: &str, reason: &str) -> QueryError {
    QueryError::BadData(format!("invalid parameter \"{name}\": {reason}"))
}

/// Within what can be counted in milliseconds without loss.
fn is_moment(number: f64) -> bool {
    number.is_finite() && number.abs() < 1e12
}

fn malformed() -> QueryError {
    QueryError::BadData("the form is not well percent-encoded".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = Form::read("match%5B%5D=b&time=1.5", b"query=a+%2B+1&match[]=a").unwrap();
        assert_eq!(form.get("query"), Some("a + 1"));
        assert_eq!(form.all("match[]").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(form.moment("time"), Ok(Some(1.5)));
        assert!(Form::read("a=%", b"").is_err() && Form::read("", b"\xff").is_err());
    }

    #[test]
    fn times_are_numbers_or_words() {
        let form = Form::read("a=1970-01-01T00:01:00Z&b=1h30m&c=soon&d=inf", b"").unwrap();
        assert_eq!(form.moment("a"), Ok(Some(60.0)));
        assert_eq!(form.seconds("b"), Ok(Some(5_400.0)));
        assert_eq!(form.seconds("e"), Ok(None));
        assert!(form.moment("c").is_err() && form.moment("d").is_err());
    }
}
