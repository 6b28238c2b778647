//! The calls of Prometheus' interface, by path.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use heddle_runtime::clock;
use hyper::StatusCode;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use super::{
    answer::{failure, instant, labels, range, success},
    families::{EJECTED, EJECTED_HELP, FAMILIES},
    form::{Form, bad},
    gather::{Wanted, gather},
};
use crate::{
    answers::View,
    limits,
    promql::{
        self, Query, QueryError,
        evaluate::{Loaded, evaluate},
        labels::{Labels, Matcher, NAME},
        parser::parse_selector,
        value::Value,
    },
};

/// What Kiali and Grafana ask which features a Prometheus has by: one of the version whose part of PromQL this is.
const LIKE_VERSION: &str = "2.42.0";

/// Is this path, behind `/api/v1/`, one of Prometheus' interface?
pub(crate) fn is_call(path: &[&str]) -> bool {
    matches!(
        path,
        ["query" | "query_range" | "query_exemplars" | "series" | "labels" | "metadata"]
            | ["label", _, "values"]
            | ["status", "buildinfo" | "config" | "flags" | "runtimeinfo"]
    )
}

/// Answers a call, of which `query` stands in its address and `posted` is its body.
pub(crate) async fn answer(
    view: &RefCell<View>,
    path: &[&str],
    query: &str,
    posted: &[u8],
) -> (StatusCode, Json) {
    match called(view, path, query, posted).await {
        Ok(data) => success(data),
        Err(error) => failure(&error),
    }
}

async fn called(
    view: &RefCell<View>,
    path: &[&str],
    query: &str,
    posted: &[u8],
) -> Result<Json, QueryError> {
    let form = Form::read(query, posted)?;
    match path {
        ["query"] => {
            let at = form.moment("time")?.unwrap_or_else(now);
            let (_, value) = query_at(view, &form, &[at], 0.0).await?;
            Ok(instant(value, at))
        }
        ["query_range"] => query_range(view, &form).await,
        // Samples here come from no trace.
        ["query_exemplars"] => Ok(json!([])),
        ["series"] => {
            let all = series(&view.borrow(), &form, true)?;
            Ok(all.iter().map(labels).collect())
        }
        ["labels"] => {
            let all = series(&view.borrow(), &form, false)?;
            let names = all.iter().flat_map(|labels| labels.iter().map(|(name, _)| name));
            Ok(json!(names.collect::<BTreeSet<_>>()))
        }
        ["label", NAME, "values"] if form.get("match[]").is_none() => {
            Ok(json!(names(&view.borrow())))
        }
        ["label", name, "values"] => {
            let all = series(&view.borrow(), &form, false)?;
            let values =
                all.iter().map(|labels| labels.get(name)).filter(|value| !value.is_empty());
            Ok(json!(values.collect::<BTreeSet<_>>()))
        }
        ["metadata"] => Ok(metadata(form.get("metric"))),
        ["status", what] => Ok(status(&view.borrow(), what)),
        _ => Err(QueryError::BadData("no such call".to_owned())),
    }
}

fn now() -> f64 {
    clock::unix_now().as_secs_f64()
}

async fn query_range(view: &RefCell<View>, form: &Form) -> Result<Json, QueryError> {
    let wanted = |name: &str, found: Option<f64>| {
        found.ok_or_else(|| bad(name, "cannot parse \"\" to a valid timestamp"))
    };
    let start = wanted("start", form.moment("start")?)?;
    let end = wanted("end", form.moment("end")?)?;
    let step = wanted("step", form.seconds("step")?)?;
    if end < start {
        return Err(bad("end", "end timestamp must not be before start time"));
    }
    if step < 0.001 {
        let reason = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(bad("step", reason));
    }
    if (end - start) / step > limits::QUERY_POINTS_MAX as f64 {
        let limit = "11,000";
        return Err(QueryError::BadData(format!(
            "exceeded maximum resolution of {limit} points per timeseries. Try decreasing the query resolution (?step=XX)"
        )));
    }
    let count = ((end - start) / step + 1e-9) as usize + 1;
    let times: Vec<f64> = (0..count).map(|n| start + step * n as f64).collect();
    let (query, value) = query_at(view, form, &times, step).await?;
    if matches!(value, Value::Matrix(_) | Value::Text(_)) {
        drop(query);
        let reason = "invalid expression type for range query, must be Scalar or instant Vector";
        return Err(bad("query", reason));
    }
    Ok(range(value, &times))
}

/// Reads a query, loads what it selects, and works it out on another thread: scrapes do not wait for that.
async fn query_at(
    view: &RefCell<View>,
    form: &Form,
    times: &[f64],
    step: f64,
) -> Result<(Arc<Query>, Value), QueryError> {
    let deadline = clock::now() + limits::QUERY_TIMEOUT;
    let query = promql::parse(form.get("query").unwrap_or_default());
    let query = Arc::new(query.map_err(|error| bad("query", &error.to_string()))?);
    let places: Arc<Semaphore> = Arc::clone(&view.borrow().queries.0);
    let place = clock::within(limits::QUERY_TIMEOUT, places.acquire_owned()).await;
    let Some(Ok(_place)) = place else { return Err(QueryError::Timeout) };
    let loaded = load(&view.borrow(), &query, times, step)?;
    let (asked, times) = (Arc::clone(&query), times.to_vec());
    let worked = work(asked, loaded, times, deadline).await?;
    Ok((query, worked))
}

async fn work(
    query: Arc<Query>,
    loaded: Vec<Loaded>,
    times: Vec<f64>,
    deadline: Instant,
) -> Result<Value, QueryError> {
    let work = move || evaluate(&query, &loaded, &times, deadline);
    let failed = |_| QueryError::Execution("the query could not be worked out".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

fn load(view: &View, query: &Query, times: &[f64], step: f64) -> Result<Vec<Loaded>, QueryError> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(Vec::new()) };
    let one = |selector: &promql::Selector| {
        let range = selector.range.unwrap_or(0.0);
        let wanted = Wanted {
            matchers: &selector.matchers,
            // The end of a range may be set back to the newest scrape.
            from: first - selector.offset - range - 2.0 * view.interval as f64 - 1.0,
            to: last - selector.offset,
            resolution: selector.range.unwrap_or(step),
            is_relative: selector.range.is_some(),
        };
        gather(view, &wanted)
    };
    query.selectors.iter().map(one).collect()
}

/// Series that match one of `match[]`, which is `needed` or stands for all, between `start` and `end`.
fn series(view: &View, form: &Form, needed: bool) -> Result<BTreeSet<Labels>, QueryError> {
    let selectors: Vec<Vec<Matcher>> = form
        .all("match[]")
        .map(|text| parse_selector(text).map_err(|error| bad("match[]", &error.to_string())))
        .collect::<Result<_, _>>()?;
    if needed && selectors.is_empty() {
        return Err(QueryError::BadData("no match[] parameter provided".to_owned()));
    }
    let from = form.moment("start")?.unwrap_or(0.0);
    let to = form.moment("end")?.unwrap_or(f64::MAX);
    let all = if selectors.is_empty() { vec![Vec::new()] } else { selectors };
    let mut found = BTreeSet::new();
    for matchers in &all {
        // What was is enough here, and not when exactly.
        let resolution = (to.min(now()) - from).max(0.0);
        let wanted = Wanted { matchers, from, to, resolution, is_relative: true };
        found.extend(gather(view, &wanted)?.curves.into_iter().map(|curve| curve.labels));
    }
    Ok(found)
}

/// Names of metrics that anything was counted of.
fn names(view: &View) -> BTreeSet<String> {
    let spans = view.store.timeline(f64::MAX);
    let mut cells = BTreeMap::new();
    for span in &spans {
        cells.extend(
            view.store.entries(span).iter().map(|(cell, _)| (std::rc::Rc::as_ptr(cell), cell)),
        );
    }
    let there = FAMILIES.iter().filter(|family| cells.values().any(|cell| family.is_of(cell)));
    let mut names: BTreeSet<String> = there.flat_map(|family| family.series()).collect();
    if !view.ejections().is_empty() {
        names.insert(EJECTED.to_owned());
    }
    names
}

fn metadata(metric: Option<&str>) -> Json {
    let told = FAMILIES.iter().map(|family| (family.name, family.kind(), family.help));
    let told = told.chain([(EJECTED, "gauge", EJECTED_HELP)]);
    let told = told.filter(|(name, ..)| metric.is_none_or(|metric| metric == *name));
    let one = |(name, kind, help): (&str, &str, &str)| {
        (name.to_owned(), json!([{ "type": kind, "help": help, "unit": "" }]))
    };
    Json::Object(told.map(one).collect())
}

fn status(view: &View, what: &str) -> Json {
    let retention = format!("{}d", limits::WINDOW_MAX / 86_400);
    match what {
        "buildinfo" => json!({
            "version": LIKE_VERSION,
            "revision": concat!("heddle-", env!("CARGO_PKG_VERSION")),
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }),
        "config" => {
            let interval = view.interval;
            json!({ "yaml": format!("global:\n  scrape_interval: {interval}s\n") })
        }
        "flags" => json!({ "storage.tsdb.retention.time": retention }),
        _ => json!({
            "storageRetention": retention,
            "timeSeriesCount": view.store.cells.len(),
            "corruptionCount": 0,
            "reloadConfigSuccess": true,
        }),
    }
}
