//! Functions over vectors and scalars.

use super::{
    QueryError,
    curve::{ABSENT, is_absent},
    expression::Function,
    labels::{Labels, anchored},
    quantiles,
    value::{Series, Value, Work, before, changed, distinct},
};
use crate::{limits, measure};

/// Calls a function; the parser has checked what it is given.
pub(super) fn call(
    work: &Work<'_>,
    function: Function,
    arguments: Vec<Value>,
) -> Result<Value, QueryError> {
    let mut left = arguments.into_iter();
    let missing = || QueryError::BadData("an argument of a function is missing".to_owned());
    let mut next = || left.next().ok_or_else(missing);
    let vector = match function {
        Function::Abs => each(next()?, f64::abs),
        Function::Ceil => each(next()?, f64::ceil),
        Function::Floor => each(next()?, f64::floor),
        Function::Round => round(next()?, next().ok()),
        Function::Clamp => clamp(next()?, Some(next()?), Some(next()?)),
        Function::ClampMin => clamp(next()?, Some(next()?), None),
        Function::ClampMax => clamp(next()?, None, Some(next()?)),
        Function::Scalar => return Ok(scalar(work, &next()?.vector()?)),
        Function::Vector => {
            work.takes(1)?;
            Ok(vec![Series { labels: Labels::default(), values: next()?.scalar()? }])
        }
        Function::Sort => Ok(sorted(next()?.vector()?, false)),
        Function::SortDesc => Ok(sorted(next()?.vector()?, true)),
        Function::HistogramQuantile => {
            let (q, of) = (next()?.scalar()?, next()?.vector()?);
            quantiles::histogram_quantile(work, &q, of)
        }
        Function::LabelReplace => {
            let of = next()?.vector()?;
            label_replace(work, of, [next()?, next()?, next()?, next()?])
        }
        Function::LabelJoin => {
            let (of, to, separator) = (next()?.vector()?, next()?.text()?, next()?.text()?);
            let names = left.map(Value::text).collect::<Result<Vec<_>, _>>()?;
            label_join(work, of, &to, &separator, &names)
        }
        // These look at what their argument is, not only at what it comes to.
        Function::Absent
        | Function::Rate
        | Function::Irate
        | Function::Increase
        | Function::Time => Err(missing()),
    };
    vector.map(Value::Vector)
}

fn each(of: Value, change: impl Fn(f64) -> f64) -> Result<Vec<Series>, QueryError> {
    changed(of.vector()?, |_, value| change(value))
}

fn round(of: Value, to: Option<Value>) -> Result<Vec<Series>, QueryError> {
    let to = to.map(Value::scalar).transpose()?;
    // As Prometheus has it: by the inverse, so that 0.1 gives no tail of digits.
    changed(of.vector()?, |moment, value| {
        let inverse = to.as_ref().map_or(1.0, |to| 1.0 / to[moment]);
        (value * inverse + 0.5).floor() / inverse
    })
}

fn clamp(of: Value, least: Option<Value>, most: Option<Value>) -> Result<Vec<Series>, QueryError> {
    let least = least.map(Value::scalar).transpose()?;
    let most = most.map(Value::scalar).transpose()?;
    changed(of.vector()?, |moment, value| {
        let most = most.as_ref().map_or(f64::INFINITY, |most| most[moment]);
        let least = least.as_ref().map_or(f64::NEG_INFINITY, |least| least[moment]);
        match value.is_nan() || least.is_nan() || most.is_nan() {
            // `min` and `max` would take the other one.
            true => f64::NAN,
            false if least > most => ABSENT,
            false => value.min(most).max(least),
        }
    })
}

/// 1 where there is no series, with the labels that one would have had for sure.
pub(super) fn absent(work: &Work<'_>, labels: Labels, vector: &[Series]) -> Vec<Series> {
    let there = |moment: usize| vector.iter().any(|series| !is_absent(series.values[moment]));
    let values = (0..work.times.len()).map(|moment| if there(moment) { ABSENT } else { 1.0 });
    vec![Series { labels, values: values.collect() }]
}

fn scalar(work: &Work<'_>, vector: &[Series]) -> Value {
    let only = |moment: usize| {
        let mut there =
            vector.iter().map(|series| series.values[moment]).filter(|value| !is_absent(*value));
        let first = there.next();
        first.filter(|_| there.next().is_none()).unwrap_or(f64::NAN)
    };
    Value::Scalar((0..work.times.len()).map(only).collect())
}

/// By the value at the last moment; a range query has one order for all moments, as with Prometheus.
fn sorted(mut vector: Vec<Series>, descending: bool) -> Vec<Series> {
    let last = |series: &Series| series.values.last().copied().unwrap_or(f64::NAN);
    vector.sort_by(|a, b| before(last(a), last(b), descending));
    vector
}

fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn label_name(name: &str) -> Result<(), QueryError> {
    if is_label_name(name) {
        return Ok(());
    }
    Err(QueryError::Execution(format!("invalid label name `{name}`")))
}

fn label_replace(
    work: &Work<'_>,
    mut vector: Vec<Series>,
    texts: [Value; 4],
) -> Result<Vec<Series>, QueryError> {
    let [to, replacement, from, pattern] = texts.map(Value::text);
    let (to, replacement, from) = (to?, replacement?, from?);
    label_name(&to)?;
    let pattern = anchored(&pattern?)?;
    for series in &mut vector {
        work.in_time()?;
        let mut value = String::new();
        if let Some(found) = pattern.captures(series.labels.get(&from)) {
            found.expand(&replacement, &mut value);
            series.labels.set(&to, measure::cut(&value));
        }
    }
    distinct(&vector)?;
    Ok(vector)
}

fn label_join(
    work: &Work<'_>,
    mut vector: Vec<Series>,
    to: &str,
    separator: &str,
    names: &[String],
) -> Result<Vec<Series>, QueryError> {
    label_name(to)?;
    for name in names {
        label_name(name)?;
    }
    for series in &mut vector {
        work.in_time()?;
        let mut joined = String::new();
        for (number, name) in names.iter().enumerate() {
            if number > 0 {
                joined.push_str(separator);
            }
            joined.push_str(series.labels.get(name));
            // The rest would be cut off.
            if joined.len() > limits::NAME_BYTES_MAX {
                break;
            }
        }
        series.labels.set(to, measure::cut(&joined));
    }
    distinct(&vector)?;
    Ok(vector)
}
