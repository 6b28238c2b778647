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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    answer::{failure, instant, labels, range, success},
    families::{EJECTED, EJECTED_HELP, FAMILIES},
    form::{Form, bad},
    gather::{Budget, Collect, Wanted, gather},
};
use crate::{
    answers::View,
    limits,
    promql::{
        self, Query, QueryError,
        curve::awaited,
        evaluate::{Loaded, evaluate},
        labels::NAME,
        parser::parse_selectors,
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

/// Answers a call, of which `query` stands in its address and `posted` is its body: with JSON.
pub(crate) async fn answer(
    view: &RefCell<View>,
    path: &[&str],
    query: &str,
    posted: &[u8],
) -> (StatusCode, Vec<u8>) {
    match called(view, path, query, posted).await {
        Ok(answer) => (StatusCode::OK, answer),
        Err(error) => failure(&error),
    }
}

async fn called(
    view: &RefCell<View>,
    path: &[&str],
    query: &str,
    posted: &[u8],
) -> Result<Vec<u8>, QueryError> {
    let form = Form::read(query, posted)?;
    match path {
        ["query"] => {
            let at = form.moment("time")?.unwrap_or_else(now);
            query_at(view, &form, vec![at], 0.0, instant).await
        }
        ["query_range"] => query_range(view, &form).await,
        // Samples here come from no trace.
        ["query_exemplars"] => Ok(success(&json!([]))),
        ["series"] => found(view, &form, Collect::Series).await,
        ["labels"] => found(view, &form, Collect::Names).await,
        ["label", NAME, "values"] if form.get("match[]").is_none() => {
            Ok(success(&json!(names(&view.borrow()))))
        }
        ["label", name, "values"] => found(view, &form, Collect::Values(name)).await,
        ["metadata"] => Ok(success(&metadata(form.get("metric")))),
        ["status", what] => Ok(success(&status(&view.borrow(), what))),
        _ => Err(QueryError::BadData("no such call".to_owned())),
    }
}

fn now() -> f64 {
    clock::unix_now().as_secs_f64()
}

async fn query_range(view: &RefCell<View>, form: &Form) -> Result<Vec<u8>, QueryError> {
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
    query_at(view, form, times, step, range).await
}

/// Reads a query, loads what it selects, and works it out on another thread: scrapes do not wait for that.
async fn query_at(
    view: &RefCell<View>,
    form: &Form,
    times: Vec<f64>,
    step: f64,
    write: fn(&Value, &[f64]) -> Result<Vec<u8>, QueryError>,
) -> Result<Vec<u8>, QueryError> {
    let deadline = clock::now() + limits::QUERY_TIMEOUT;
    let place = place(view).await?;
    let text = form.get("query").unwrap_or_default().to_owned();
    let (query, place) = aside(move || (promql::parse(&text), place)).await?;
    let query = query.map_err(|error| bad("query", &error.to_string()))?;
    let loaded = load(&view.borrow(), &query, &times, step, deadline)?;
    let work = move || {
        // Whoever asked may be gone by now: the place is taken as long as there is work.
        let _place = place;
        let value = evaluate(&query, &loaded, &times, deadline)?;
        drop(loaded);
        write(&value, &times)
    };
    aside(work).await?
}

/// One of the places for queries, as soon as one is free.
async fn place(view: &RefCell<View>) -> Result<OwnedSemaphorePermit, QueryError> {
    let places: Arc<Semaphore> = Arc::clone(&view.borrow().queries.0);
    match clock::within(limits::QUERY_TIMEOUT, places.acquire_owned()).await {
        Some(Ok(place)) => Ok(place),
        _ => Err(QueryError::Timeout),
    }
}

/// Does work on another thread.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, QueryError> {
    let failed = |_| QueryError::Execution("the query could not be worked out".to_owned());
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn load(
    view: &View,
    query: &Query,
    times: &[f64],
    step: f64,
    deadline: Instant,
) -> Result<Vec<Loaded>, QueryError> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(Vec::new()) };
    let mut budget = Budget::until(deadline);
    let mut one = |selector: &promql::Selector| {
        let range = selector.range.unwrap_or(0.0);
        let wanted = Wanted {
            matchers: &selector.matchers,
            // The end of a range may be set back to the newest scrape.
            from: first - selector.offset - range - awaited(view.interval as f64),
            to: last - selector.offset,
            resolution: selector.range.unwrap_or(step),
            is_relative: selector.range.is_some(),
            collect: Collect::Curves,
        };
        gather(view, &wanted, &mut budget).map(|gathered| gathered.loaded)
    };
    query.selectors.iter().map(&mut one).collect()
}

/// What series that match one of `match[]`, or all where there is none, have, between `start` and `end`.
async fn found(
    view: &RefCell<View>,
    form: &Form,
    collect: Collect<'_>,
) -> Result<Vec<u8>, QueryError> {
    let deadline = clock::now() + limits::QUERY_TIMEOUT;
    let texts: Vec<String> = form.all("match[]").map(str::to_owned).collect();
    let is_series = matches!(collect, Collect::Series);
    if is_series && texts.is_empty() {
        return Err(QueryError::BadData("no match[] parameter provided".to_owned()));
    }
    if texts.len() > limits::QUERY_MATCHES_MAX {
        let limit = limits::QUERY_MATCHES_MAX;
        return Err(bad("match[]", &format!("there may be {limit} of them")));
    }
    let from = form.moment("start")?.unwrap_or(0.0);
    let to = form.moment("end")?.unwrap_or(f64::MAX);
    let place = place(view).await?;
    let (selectors, _place) = aside(move || (parse_selectors(&texts), place)).await?;
    let selectors = selectors.map_err(|error| bad("match[]", &error.to_string()))?;
    let all = if selectors.is_empty() { vec![Vec::new()] } else { selectors };
    let mut budget = Budget::until(deadline);
    let (mut series, mut words) = (BTreeSet::new(), BTreeSet::new());
    for matchers in &all {
        // What was is enough here, and not when exactly.
        let resolution = (to.min(now()) - from).max(0.0);
        let wanted = Wanted { matchers, from, to, resolution, is_relative: true, collect };
        let gathered = gather(&view.borrow(), &wanted, &mut budget)?;
        series.extend(gathered.loaded.curves.into_iter().map(|curve| curve.labels));
        words.extend(gathered.words);
    }
    Ok(match is_series {
        true => success(&series.iter().map(labels).collect()),
        false => success(&json!(words)),
    })
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
