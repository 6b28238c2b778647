//! Working a query out, over what was loaded for its selectors.

use std::time::Instant;

use super::{
    QueryError, aggregate, binary,
    curve::{Curve, Measured, is_absent},
    expression::{Expression, Function, Query},
    functions,
    labels::{Labels, Matcher, NAME},
    value::{Series, Value, Work, changed, distinct},
};

/// What was loaded for one selector.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) measured: Measured,
    pub(crate) curves: Vec<Curve>,
}

/// What evaluation needs besides the tree.
struct Context<'a> {
    query: &'a Query,
    loaded: &'a [Loaded],
    work: Work<'a>,
}

/// Works a query out at these moments.
///
/// # Errors
/// It makes no sense with these series, or is too large.
pub(crate) fn evaluate(
    query: &Query,
    loaded: &[Loaded],
    times: &[f64],
    deadline: Instant,
) -> Result<Value, QueryError> {
    let context = Context { query, loaded, work: Work::new(times, deadline) };
    if let Expression::Range(number) = query.expression {
        return context.matrix(number);
    }
    context.value(&query.expression)
}

impl Context<'_> {
    fn value(&self, expression: &Expression) -> Result<Value, QueryError> {
        self.work.in_time()?;
        match expression {
            Expression::Number(number) => Ok(Value::Scalar(vec![*number; self.work.times.len()])),
            Expression::Text(text) => Ok(Value::Text(text.clone())),
            Expression::Instant(number) => {
                self.each_curve(*number, |measured, curve, at, _| measured.value(curve, at))
            }
            // The parser lets a range stand alone or in the functions that take one.
            Expression::Range(_) => Err(QueryError::BadData("a range stands alone".to_owned())),
            Expression::Call { function, arguments } => self.call(*function, arguments),
            Expression::Aggregate(how) => {
                let parameter = how.parameter.as_ref().map(|parameter| self.value(parameter));
                let (parameter, of) = (parameter.transpose()?, self.value(&how.of)?);
                aggregate::aggregate(&self.work, how, parameter, of).map(Value::Vector)
            }
            Expression::Binary(how) => {
                let (left, right) = (self.value(&how.left)?, self.value(&how.right)?);
                binary::binary(&self.work, how, left, right)
            }
            Expression::Negated(of) => match self.value(of)? {
                Value::Scalar(values) => {
                    Ok(Value::Scalar(values.into_iter().map(|value| -value).collect()))
                }
                other => changed(other.vector()?, |_, value| -value).map(Value::Vector),
            },
        }
    }

    fn each_curve(
        &self,
        number: usize,
        value: impl Fn(&Measured, &Curve, f64, f64) -> f64,
    ) -> Result<Value, QueryError> {
        let (selector, loaded) = (&self.query.selectors[number], &self.loaded[number]);
        let range = selector.range.unwrap_or(0.0);
        let mut vector = Vec::new();
        for curve in &loaded.curves {
            self.work.takes(1)?;
            let at = |time: &f64| value(&loaded.measured, curve, time - selector.offset, range);
            let values: Vec<f64> = self.work.times.iter().map(at).collect();
            if values.iter().any(|value| !is_absent(*value)) {
                let named = selector.range.is_none();
                let labels = if named { curve.labels.clone() } else { curve.labels.nameless() };
                vector.push(Series { labels, values });
            }
        }
        distinct(&vector)?;
        Ok(Value::Vector(vector))
    }

    fn matrix(&self, number: usize) -> Result<Value, QueryError> {
        let (selector, loaded) = (&self.query.selectors[number], &self.loaded[number]);
        let (Some(at), Some(range)) = (self.work.times.last(), selector.range) else {
            return Ok(Value::Matrix(Vec::new()));
        };
        let mut all = Vec::new();
        for curve in &loaded.curves {
            let samples = loaded.measured.samples(curve, at - selector.offset, range);
            self.work.takes(samples.len())?;
            if !samples.is_empty() {
                all.push((curve.labels.clone(), samples));
            }
        }
        Ok(Value::Matrix(all))
    }

    fn call(&self, function: Function, arguments: &[Expression]) -> Result<Value, QueryError> {
        let range = |argument: &Expression| match argument {
            Expression::Range(number) => Ok(*number),
            _ => Err(QueryError::BadData("a range vector is expected".to_owned())),
        };
        match (function, arguments) {
            (Function::Rate, [of]) => self.each_curve(range(of)?, |measured, curve, at, range| {
                let increase = measured.increase(curve, at, range);
                if is_absent(increase) { increase } else { increase / range }
            }),
            (Function::Increase, [of]) => self.each_curve(range(of)?, Measured::increase),
            (Function::Irate, [of]) => self.each_curve(range(of)?, Measured::latest_rate),
            (Function::Absent, [of]) => {
                let labels = match of {
                    Expression::Instant(number) => sure(&self.query.selectors[*number].matchers),
                    _ => Labels::default(),
                };
                let there = self.value(of)?.vector()?;
                Ok(Value::Vector(functions::absent(&self.work, labels, &there)))
            }
            (Function::Time, []) => Ok(Value::Scalar(self.work.times.to_vec())),
            _ => {
                let values = arguments.iter().map(|argument| self.value(argument));
                functions::call(&self.work, function, values.collect::<Result<_, _>>()?)
            }
        }
    }
}

/// Labels that whatever matches has for sure; one that several matchers are about is none, as with Prometheus.
fn sure(matchers: &[Matcher]) -> Labels {
    let mut labels = Labels::default();
    for matcher in matchers.iter().filter(|matcher| matcher.name != NAME) {
        let only = matchers.iter().filter(|other| other.name == matcher.name).count() == 1;
        if let Some(value) = matcher.equal().filter(|_| only) {
            labels.set(&matcher.name, value);
        }
    }
    labels
}
