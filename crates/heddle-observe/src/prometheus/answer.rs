//! Answers as Prometheus writes them. What a query comes to is written straight into bytes: as a tree of values a large
//! one would take ten times as much.

use std::io::Write as _;

use hyper::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::{
    limits,
    promql::{
        QueryError,
        curve::is_absent,
        labels::Labels,
        value::{Series, Value},
    },
};

/// What was asked for.
pub(super) fn success(data: &Json) -> Vec<u8> {
    text(&json!({ "status": "success", "data": data }))
}

/// Why there is no answer.
pub(super) fn failure(error: &QueryError) -> (StatusCode, Vec<u8>) {
    let (status, kind) = match error {
        QueryError::BadData(_) => (StatusCode::BAD_REQUEST, "bad_data"),
        QueryError::Execution(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
        QueryError::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
    };
    (status, refusal(kind, &error.to_string()))
}

/// An error in the form of Prometheus.
pub(crate) fn refusal(kind: &str, reason: &str) -> Vec<u8> {
    text(&json!({ "status": "error", "errorType": kind, "error": reason }))
}

/// The value of a query at one moment.
///
/// # Errors
/// It has more samples than one answer may have.
pub(super) fn instant(value: &Value, times: &[f64]) -> Result<Vec<u8>, QueryError> {
    let at = times.first().copied().unwrap_or_default();
    match value {
        Value::Scalar(values) => {
            let mut answer = Answer::new("scalar");
            answer.sample(at, values.first().copied().unwrap_or(f64::NAN))?;
            Ok(answer.end())
        }
        Value::Text(words) => {
            let mut answer = Answer::new("string");
            let _ = write!(answer.out, "[{},", Moment(at));
            answer.out.extend(text(words));
            answer.out.push(b']');
            Ok(answer.end())
        }
        Value::Vector(vector) => {
            let mut answer = Answer::new("vector");
            answer.out.push(b'[');
            for series in vector {
                let there = series.values.first().filter(|value| !is_absent(**value));
                let Some(value) = there else { continue };
                answer.metric(&series.labels, "value");
                answer.sample(at, *value)?;
                answer.out.push(b'}');
            }
            answer.out.push(b']');
            Ok(answer.end())
        }
        Value::Matrix(matrix) => {
            let mut answer = Answer::new("matrix");
            answer.out.push(b'[');
            for (labels, samples) in matrix {
                answer.series(labels, samples.iter().copied())?;
            }
            answer.out.push(b']');
            Ok(answer.end())
        }
    }
}

/// The values of a query at many moments.
///
/// # Errors
/// They have more samples than one answer may have, or are none that can be told for several moments.
pub(super) fn range(value: &Value, times: &[f64]) -> Result<Vec<u8>, QueryError> {
    let mut answer = Answer::new("matrix");
    answer.out.push(b'[');
    match value {
        Value::Scalar(values) => answer.series(&Labels::default(), there(times, values))?,
        Value::Vector(vector) => {
            for Series { labels, values } in vector {
                answer.series(labels, there(times, values))?;
            }
        }
        Value::Matrix(_) | Value::Text(_) => {
            let reason =
                "invalid expression type for range query, must be Scalar or instant Vector";
            return Err(super::form::bad("query", reason));
        }
    }
    answer.out.push(b']');
    Ok(answer.end())
}

/// Values that there are, with their times.
fn there(times: &[f64], values: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    let samples = times.iter().copied().zip(values.iter().copied());
    samples.filter(|(_, value)| !is_absent(*value))
}

/// A set of labels.
pub(super) fn labels(labels: &Labels) -> Json {
    let pairs = labels.iter().map(|(name, value)| (name.to_owned(), Json::from(value)));
    Json::Object(pairs.collect::<Map<_, _>>())
}

/// What is written of an answer so far.
struct Answer {
    out: Vec<u8>,
    samples: usize,
}

impl Answer {
    fn new(kind: &str) -> Self {
        let begin =
            format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"{kind}\",\"result\":");
        Self { out: begin.into_bytes(), samples: 0 }
    }

    fn end(mut self) -> Vec<u8> {
        self.out.extend(b"}}");
        self.out
    }

    /// All of a series, if it has any sample.
    fn series(
        &mut self,
        labels: &Labels,
        samples: impl Iterator<Item = (f64, f64)>,
    ) -> Result<(), QueryError> {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        self.metric(labels, "values");
        for (number, (at, value)) in samples.enumerate() {
            self.out.push(if number == 0 { b'[' } else { b',' });
            self.sample(at, value)?;
        }
        self.out.extend(b"]}");
        Ok(())
    }

    /// The beginning of a series, up to its values, which have this name.
    fn metric(&mut self, of: &Labels, values: &str) {
        if self.out.last() == Some(&b'}') {
            self.out.push(b',');
        }
        self.out.extend(b"{\"metric\":");
        self.out.extend(text(&labels(of)));
        let _ = write!(self.out, ",\"{values}\":");
    }

    fn sample(&mut self, at: f64, value: f64) -> Result<(), QueryError> {
        self.samples += 1;
        if self.samples > limits::QUERY_SAMPLES_MAX {
            return Err(QueryError::too_many_samples());
        }
        // Writing to memory does not fail.
        let _ = match value {
            value if value == f64::INFINITY => write!(self.out, "[{},\"+Inf\"]", Moment(at)),
            value if value == f64::NEG_INFINITY => write!(self.out, "[{},\"-Inf\"]", Moment(at)),
            other => write!(self.out, "[{},\"{other}\"]", Moment(at)),
        };
        Ok(())
    }
}

/// To a millisecond, and a whole number where it is one.
struct Moment(f64);

impl std::fmt::Display for Moment {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}", (self.0 * 1e3).round() / 1e3)
    }
}

fn text(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    // A tree of texts and numbers is always JSON.
    serde_json::to_vec(value).unwrap_or_default()
}
