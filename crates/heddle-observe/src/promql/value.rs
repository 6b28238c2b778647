//! What expressions come to, and how much of it there may be.

use std::{cell::Cell, cmp::Ordering, collections::HashSet, time::Instant};

use heddle_runtime::clock;

use super::{QueryError, curve::is_absent, labels::Labels};
use crate::limits;

/// One series at all moments of a query.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<f64>,
}

/// What an expression comes to.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// One number per moment.
    Scalar(Vec<f64>),
    Vector(Vec<Series>),
    /// Samples with their times.
    Matrix(Vec<(Labels, Vec<(f64, f64)>)>),
    Text(String),
}

impl Value {
    /// A vector; the parser has checked that it is one.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn vector(self) -> Result<Vec<Series>, QueryError> {
        match self {
            Self::Vector(series) => Ok(series),
            _ => Err(QueryError::BadData("an instant vector is expected".to_owned())),
        }
    }

    /// A number per moment.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn scalar(self) -> Result<Vec<f64>, QueryError> {
        match self {
            Self::Scalar(values) => Ok(values),
            _ => Err(QueryError::BadData("a scalar is expected".to_owned())),
        }
    }

    /// A string.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn text(self) -> Result<String, QueryError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(QueryError::BadData("a string is expected".to_owned())),
        }
    }
}

/// The moments of a query, and how much of it may still be done.
#[derive(Debug)]
pub(super) struct Work<'a> {
    /// Unix seconds.
    pub(super) times: &'a [f64],
    /// Numbers that may still be made.
    left: Cell<usize>,
    deadline: Instant,
}

impl<'a> Work<'a> {
    pub(super) fn new(times: &'a [f64], deadline: Instant) -> Self {
        Self { times, left: Cell::new(limits::QUERY_NUMBERS_MAX), deadline }
    }

    /// Makes room for so many series.
    ///
    /// # Errors
    /// There is none, or it takes too long.
    pub(super) fn takes(&self, series: usize) -> Result<(), QueryError> {
        let wanted = series.saturating_mul(self.times.len());
        let left = self.left.get().checked_sub(wanted).ok_or_else(QueryError::too_many_samples)?;
        self.left.set(left);
        self.in_time()
    }

    /// # Errors
    /// It takes too long.
    pub(super) fn in_time(&self) -> Result<(), QueryError> {
        if clock::now() < self.deadline { Ok(()) } else { Err(QueryError::Timeout) }
    }
}

/// Each number of a vector changed, by the number of its moment; the metric's name goes.
///
/// # Errors
/// Two series are the same without it.
pub(super) fn changed(
    mut vector: Vec<Series>,
    change: impl Fn(usize, f64) -> f64,
) -> Result<Vec<Series>, QueryError> {
    for series in &mut vector {
        series.labels = series.labels.nameless();
        for (moment, value) in series.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = change(moment, *value);
            }
        }
    }
    distinct(&vector)?;
    Ok(vector)
}

/// The order of two values, of which one that is no number comes last either way.
pub(super) fn before(a: f64, b: f64, largest: bool) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        _ if largest => b.total_cmp(&a),
        _ => a.total_cmp(&b),
    }
}

/// No two series may have the same labels.
///
/// # Errors
/// Two have.
pub(super) fn distinct(vector: &[Series]) -> Result<(), QueryError> {
    let mut seen = HashSet::new();
    if vector.iter().all(|series| seen.insert(&series.labels)) {
        return Ok(());
    }
    let reason = "vector cannot contain metrics with the same labelset";
    Err(QueryError::Execution(reason.to_owned()))
}
