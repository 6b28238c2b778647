//! Answers as Prometheus writes them.

use hyper::StatusCode;
use serde_json::{Map, Value as Json, json};

use crate::promql::{
    QueryError,
    curve::is_absent,
    labels::Labels,
    value::{Series, Value},
};

/// What was asked for.
pub(super) fn success(data: Json) -> (StatusCode, Json) {
    (StatusCode::OK, json!({ "status": "success", "data": data }))
}

/// Why there is no answer.
pub(super) fn failure(error: &QueryError) -> (StatusCode, Json) {
    let (status, kind) = match error {
        QueryError::BadData(_) => (StatusCode::BAD_REQUEST, "bad_data"),
        QueryError::Execution(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
        QueryError::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
    };
    (status, json!({ "status": "error", "errorType": kind, "error": error.to_string() }))
}

/// The value of a query at one moment.
pub(super) fn instant(value: Value, at: f64) -> Json {
    match value {
        Value::Scalar(values) => {
            let value = values.first().copied().unwrap_or(f64::NAN);
            json!({ "resultType": "scalar", "result": sample(at, value) })
        }
        Value::Text(text) => json!({ "resultType": "string", "result": [moment(at), text] }),
        Value::Vector(vector) => {
            let one = |series: &Series| {
                let value = *series.values.first().filter(|value| !is_absent(**value))?;
                Some(json!({ "metric": labels(&series.labels), "value": sample(at, value) }))
            };
            let result: Vec<Json> = vector.iter().filter_map(one).collect();
            json!({ "resultType": "vector", "result": result })
        }
        Value::Matrix(matrix) => {
            let one = |(metric, samples): &(Labels, Vec<(f64, f64)>)| {
                let values = samples.iter().map(|(at, value)| sample(*at, *value));
                json!({ "metric": labels(metric), "values": values.collect::<Vec<_>>() })
            };
            let result: Vec<Json> = matrix.iter().map(one).collect();
            json!({ "resultType": "matrix", "result": result })
        }
    }
}

/// The values of a query at many moments.
pub(super) fn range(value: Value, times: &[f64]) -> Json {
    let vector = match value {
        Value::Scalar(values) => vec![Series { labels: Labels::default(), values }],
        Value::Vector(vector) => vector,
        Value::Matrix(_) | Value::Text(_) => Vec::new(),
    };
    let one = |series: &Series| {
        let samples = times.iter().zip(&series.values);
        let there = samples.filter(|(_, value)| !is_absent(**value));
        let values: Vec<Json> = there.map(|(at, value)| sample(*at, *value)).collect();
        let metric = labels(&series.labels);
        (!values.is_empty()).then(|| json!({ "metric": metric, "values": values }))
    };
    let result: Vec<Json> = vector.iter().filter_map(one).collect();
    json!({ "resultType": "matrix", "result": result })
}

/// A set of labels.
pub(super) fn labels(labels: &Labels) -> Json {
    let pairs = labels.iter().map(|(name, value)| (name.to_owned(), Json::from(value)));
    Json::Object(pairs.collect::<Map<_, _>>())
}

fn sample(at: f64, value: f64) -> Json {
    let text = match value {
        value if value == f64::INFINITY => "+Inf".to_owned(),
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        other => other.to_string(),
    };
    json!([moment(at), text])
}

/// To a millisecond, and a whole number where it is one.
fn moment(at: f64) -> Json {
    let rounded = (at * 1e3).round() / 1e3;
    if rounded.fract() == 0.0 { Json::from(rounded as i64) } else { Json::from(rounded) }
}
