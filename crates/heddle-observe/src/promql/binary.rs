//! Operators between scalars and vectors, and which series of two vectors belong together.

use std::collections::HashMap;

use super::{
    QueryError,
    curve::{ABSENT, is_absent},
    expression::{Binary, Many, Matching, Operator},
    labels::Labels,
    value::{Series, Value, Work, distinct},
};

pub(super) fn binary(
    work: &Work<'_>,
    how: &Binary,
    left: Value,
    right: Value,
) -> Result<Value, QueryError> {
    match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let both = left.into_iter().zip(right);
            Ok(Value::Scalar(both.map(|(a, b)| calculated(how.operator, a, b)).collect()))
        }
        (Value::Vector(vector), Value::Scalar(scalar)) => {
            with_scalar(work, how, vector, &scalar, false).map(Value::Vector)
        }
        (Value::Scalar(scalar), Value::Vector(vector)) => {
            with_scalar(work, how, vector, &scalar, true).map(Value::Vector)
        }
        (Value::Vector(left), Value::Vector(right)) if how.operator.is_set() => {
            Ok(Value::Vector(set(work, how, left, right)?))
        }
        (Value::Vector(left), Value::Vector(right)) => {
            joined(work, how, left, right).map(Value::Vector)
        }
        _ => Err(QueryError::BadData("operators are for scalars and vectors".to_owned())),
    }
}

/// What two numbers come to; a comparison to 1 or 0.
fn calculated(operator: Operator, a: f64, b: f64) -> f64 {
    let truth = |holds: bool| if holds { 1.0 } else { 0.0 };
    match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::Modulo => a % b,
        Operator::Power => a.powf(b),
        Operator::Equal => truth(a == b),
        Operator::NotEqual => truth(a != b),
        Operator::Less => truth(a < b),
        Operator::LessEqual => truth(a <= b),
        Operator::Greater => truth(a > b),
        Operator::GreaterEqual => truth(a >= b),
        Operator::And | Operator::Or | Operator::Unless => f64::NAN,
    }
}

/// The value of a pair whose vector's side is `kept`: a comparison leaves out what it does not hold for.
fn paired(how: &Binary, a: f64, b: f64, kept: f64) -> f64 {
    let value = calculated(how.operator, a, b);
    match how.operator.is_comparison() && !how.as_bool {
        true if value == 0.0 => ABSENT,
        true => kept,
        false => value,
    }
}

fn with_scalar(
    work: &Work<'_>,
    how: &Binary,
    mut vector: Vec<Series>,
    scalar: &[f64],
    swapped: bool,
) -> Result<Vec<Series>, QueryError> {
    let filters = how.operator.is_comparison() && !how.as_bool;
    for series in &mut vector {
        for (value, scalar) in series.values.iter_mut().zip(scalar) {
            if !is_absent(*value) {
                let (a, b) = if swapped { (*scalar, *value) } else { (*value, *scalar) };
                *value = paired(how, a, b, *value);
            }
        }
        if !filters {
            series.labels = series.labels.nameless();
        }
    }
    work.in_time()?;
    vector.retain(|series| series.values.iter().any(|value| !is_absent(*value)));
    distinct(&vector)?;
    Ok(vector)
}

/// By what a series is matched.
fn signature(matching: &Matching, labels: &Labels) -> Labels {
    match matching.on {
        true => labels.only(&matching.labels),
        false => labels.without(&matching.labels),
    }
}

fn set(
    work: &Work<'_>,
    how: &Binary,
    left: Vec<Series>,
    right: Vec<Series>,
) -> Result<Vec<Series>, QueryError> {
    let moments = work.times.len();
    let there = |side: &[Series]| {
        let mut there: HashMap<Labels, Vec<bool>> = HashMap::new();
        for series in side {
            let known = there.entry(signature(&how.matching, &series.labels));
            let known = known.or_insert_with(|| vec![false; moments]);
            for (known, value) in known.iter_mut().zip(&series.values) {
                *known |= !is_absent(*value);
            }
        }
        there
    };
    let filtered = |side: Vec<Series>, other: &HashMap<Labels, Vec<bool>>, wanted: bool| {
        let kept = side.into_iter().filter_map(|mut series| {
            let other = other.get(&signature(&how.matching, &series.labels));
            for (moment, value) in series.values.iter_mut().enumerate() {
                if other.is_some_and(|other| other[moment]) != wanted {
                    *value = ABSENT;
                }
            }
            series.values.iter().any(|value| !is_absent(*value)).then_some(series)
        });
        kept.collect::<Vec<_>>()
    };
    work.takes(left.len() + right.len())?;
    Ok(match how.operator {
        Operator::And => filtered(left, &there(&right), true),
        Operator::Unless => filtered(left, &there(&right), false),
        _ => {
            let known = there(&left);
            merged(left, filtered(right, &known, false))
        }
    })
}

/// Both sides of an `or`: one series may be on the left at one moment and on the right at another.
fn merged(left: Vec<Series>, right: Vec<Series>) -> Vec<Series> {
    let mut all = left;
    let mut known: HashMap<Labels, usize> =
        all.iter().enumerate().map(|(index, series)| (series.labels.clone(), index)).collect();
    for series in right {
        match known.get(&series.labels) {
            Some(&index) => {
                for (value, other) in all[index].values.iter_mut().zip(series.values) {
                    if is_absent(*value) {
                        *value = other;
                    }
                }
            }
            None => {
                known.insert(series.labels.clone(), all.len());
                all.push(series);
            }
        }
    }
    all
}

/// Arithmetic and comparisons between the series of two vectors.
fn joined(
    work: &Work<'_>,
    how: &Binary,
    left: Vec<Series>,
    right: Vec<Series>,
) -> Result<Vec<Series>, QueryError> {
    let matching = &how.matching;
    let swapped = matching.many == Many::Right;
    // The side with one is looked up for each of the side that may have many.
    let (many, one) = if swapped { (right, left) } else { (left, right) };
    let mut ones: HashMap<Labels, Vec<&Series>> = HashMap::new();
    for series in &one {
        let same = ones.entry(signature(matching, &series.labels)).or_default();
        if same.iter().any(|known| overlap(known, series)) {
            let side = if swapped { "left" } else { "right" };
            return Err(many_to_many(&format!(
                "found duplicate series for the match group on the {side} hand-side of the operation"
            )));
        }
        same.push(series);
    }
    let mut taken: HashMap<Labels, Vec<bool>> = HashMap::new();
    let mut all: Vec<Series> = Vec::new();
    let mut places: HashMap<Labels, usize> = HashMap::new();
    for series in &many {
        let signature = signature(matching, &series.labels);
        let Some(partners) = ones.get(&signature) else { continue };
        for partner in partners {
            work.takes(1)?;
            let values = pairs(how, series, partner, swapped);
            if values.iter().all(|value| is_absent(*value)) {
                continue;
            }
            if matching.many == Many::Neither {
                let taken = taken.entry(signature.clone());
                let taken = taken.or_insert_with(|| vec![false; values.len()]);
                // What a comparison has left out is no match.
                let met = |moment: usize| !is_absent(values[moment]);
                let mut met = taken.iter_mut().enumerate().filter(|(moment, _)| met(*moment));
                if met.any(|(_, taken)| std::mem::replace(taken, true)) {
                    let reason = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)";
                    return Err(many_to_many(reason));
                }
            }
            let labels = result_labels(how, &series.labels, &partner.labels);
            let place = *places.entry(labels).or_insert_with_key(|labels| {
                let values = vec![ABSENT; values.len()];
                all.push(Series { labels: labels.clone(), values });
                all.len() - 1
            });
            fill(&mut all[place], &values)?;
        }
    }
    Ok(all)
}

fn fill(into: &mut Series, values: &[f64]) -> Result<(), QueryError> {
    for (known, value) in into.values.iter_mut().zip(values) {
        if is_absent(*value) {
            continue;
        }
        if !is_absent(*known) {
            let reason = "multiple matches for labels: grouping labels must ensure unique matches";
            return Err(many_to_many(reason));
        }
        *known = *value;
    }
    Ok(())
}

fn many_to_many(reason: &str) -> QueryError {
    QueryError::Execution(reason.to_owned())
}

/// Are both there at one moment?
fn overlap(a: &Series, b: &Series) -> bool {
    a.values.iter().zip(&b.values).any(|(a, b)| !is_absent(*a) && !is_absent(*b))
}

fn pairs(how: &Binary, many: &Series, one: &Series, swapped: bool) -> Vec<f64> {
    let pair = |(many, one): (&f64, &f64)| {
        if is_absent(*many) || is_absent(*one) {
            return ABSENT;
        }
        let (a, b) = if swapped { (*one, *many) } else { (*many, *one) };
        // What a comparison keeps is always the left side.
        paired(how, a, b, a)
    };
    many.values.iter().zip(&one.values).map(pair).collect()
}

fn result_labels(how: &Binary, many: &Labels, one: &Labels) -> Labels {
    let filters = how.operator.is_comparison() && !how.as_bool;
    let matching = &how.matching;
    let mut labels = match filters {
        true => many.clone(),
        false => many.nameless(),
    };
    if matching.many == Many::Neither {
        return match matching.on {
            true => labels.only(&matching.labels),
            // A comparison keeps the name of what it keeps.
            false if filters => {
                for name in &matching.labels {
                    labels.set(name, "");
                }
                labels
            }
            false => labels.without(&matching.labels),
        };
    }
    for name in &matching.include {
        labels.set(name, one.get(name));
    }
    labels
}
