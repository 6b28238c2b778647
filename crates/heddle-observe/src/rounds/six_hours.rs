//! What the store takes after six hours of fifty sidecars. No test but a bench, since it has to be inside: what passes
//! in six hours is told to the rounds as scrapes would tell it, and the file is written as it is in service.
//! `cargo xtask bench store` runs it.

use std::{fmt::Write as _, fs, path::Path};

use heddle_model::ServiceName;
use heddle_testkit::folder::Folder;

use super::*;
use crate::{
    history::{self, History},
    kept_file::File,
    measure::Owner,
};

const PROXIES: usize = 50;
/// Unix second at which it begins, the first of a slot of each length.
const START: u64 = 1_700_000_400;
/// Seconds between scrapes until the last quarter of an hour, in which there is one each second as the finest slots
/// have it.
const COARSE: u64 = 10;
const FINE_SECONDS: u64 = 900;
/// Calls per second between two services.
const CALLS: u64 = 5;
/// As sidecars have them.
const LATENCIES: [&str; 20] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000",
    "30000", "60000", "300000", "600000", "1800000", "3600000", "+Inf",
];
const SIZES: [&str; 7] = ["100", "1000", "10000", "60000", "600000", "3600000", "+Inf"];
const CODES: [&str; 2] = ["200", "503"];
/// Series of one place: three histograms with sum and count, and two kinds of answers.
const SERIES_OF_PLACE: usize = LATENCIES.len() + 2 * SIZES.len() + 3 * 2 + CODES.len();

/// One caller and callee as one of their sidecars counts them.
struct Place {
    labels: String,
    codes: [u64; CODES.len()],
    histograms: [Counted; 3],
    random: u64,
}

/// A histogram's counters.
struct Counted {
    name: &'static str,
    bounds: &'static [&'static str],
    cumulative: Vec<u64>,
    sum: u64,
}

impl Counted {
    fn new(name: &'static str, bounds: &'static [&'static str]) -> Self {
        Self { name, bounds, cumulative: vec![0; bounds.len()], sum: 0 }
    }

    fn count(&mut self, value: u64) {
        self.sum += value;
        for (bound, count) in self.bounds.iter().zip(&mut self.cumulative) {
            *count += u64::from(bound.parse::<f64>().is_ok_and(|bound| value as f64 <= bound));
        }
    }
}

impl Place {
    fn new(number: usize) -> Self {
        let (reporter, app) = (["source", "destination"][number % 2], |n: usize| format!("s{n}"));
        let (from, to) = (app(number), app(number * 7 + 3));
        let mut labels = format!("reporter=\"{reporter}\",request_protocol=\"http\"");
        for (side, app) in [("source", from), ("destination", to)] {
            write!(
                labels,
                ",{side}_workload=\"{app}-v1\",{side}_workload_namespace=\"default\",{side}_app=\"{app}\",\
                 {side}_canonical_service=\"{app}\",{side}_canonical_revision=\"v1\",{side}_version=\"v1\",\
                 {side}_principal=\"unknown\",{side}_cluster=\"Kubernetes\""
            )
            .unwrap();
            if side == "destination" {
                write!(
                    labels,
                    ",destination_service=\"{app}.default.svc.cluster.local\",destination_service_name=\"{app}\",\
                     destination_service_namespace=\"default\",connection_security_policy=\"none\""
                )
                .unwrap();
            }
        }
        let histograms = [
            Counted::new("istio_request_duration_milliseconds", &LATENCIES),
            Counted::new("istio_request_bytes", &SIZES),
            Counted::new("istio_response_bytes", &SIZES),
        ];
        Self { labels, codes: [0; 2], histograms, random: 1 + number as u64 }
    }

    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Time passes: calls are counted, most within 50 ms, one in 64 slow, one in 128 an error.
    fn passes(&mut self, seconds: u64) {
        for _ in 0..seconds * CALLS {
            let random = self.random();
            let spread = [2, 8, 20, 45][(random % 4) as usize];
            let latency = if random.is_multiple_of(64) { 700 } else { random / 64 % spread };
            self.codes[usize::from(random % 128 == 1)] += 1;
            let [latencies, requests, responses] = &mut self.histograms;
            latencies.count(latency);
            requests.count(300);
            responses.count(random / 128 % 20_000);
        }
    }

    /// Its lines, one after the other.
    fn tell(&self, line: &mut String, mut tell: impl FnMut(&str)) {
        let mut one = |name: &str, part: &str, label: &str, value: u64| {
            line.clear();
            let flags = "response_code=\"200\",response_flags=\"-\"";
            let flags = if part.is_empty() { "response_flags=\"-\"" } else { flags };
            write!(line, "{name}{part}{{{},{flags}{label}}} {value}", self.labels).unwrap();
            tell(line);
        };
        for (code, count) in CODES.iter().zip(self.codes) {
            one("istio_requests_total", "", &format!(",response_code=\"{code}\""), count);
        }
        for Counted { name, bounds, cumulative, sum } in &self.histograms {
            for (bound, count) in bounds.iter().zip(cumulative) {
                one(name, "_bucket", &format!(",le=\"{bound}\""), *count);
            }
            one(name, "_sum", "", *sum);
            one(name, "_count", "", *cumulative.last().unwrap());
        }
    }
}

/// The observer's side: everything but the listeners.
struct Observer {
    view: View,
    file: File,
    sidecars: Vec<Option<Sidecar>>,
    line: String,
}

impl Observer {
    fn new(path: &Path) -> Self {
        let mut view = View::default();
        let file = history::open(path.to_owned(), &mut view.store, &mut view.rulebook).unwrap();
        let sidecar = |number| {
            let owner = Owner {
                id: format!("s{number}-v1-1"),
                service: ServiceName::new(&format!("s{number}"), "default").unwrap(),
                version: "v1".to_owned(),
            };
            Some(Sidecar {
                ledger: Ledger::new(owner, Past::default()),
                counted: 0.0,
                due: clock::now(),
                listed: clock::now(),
            })
        };
        Self { view, file, sidecars: (0..PROXIES).map(sidecar).collect(), line: String::new() }
    }

    fn round(&mut self, at: u64, seconds: u64, places: &mut [Place]) {
        self.view.store.begin_round(at, seconds as f64);
        for number in 0..PROXIES {
            let mut sidecar = self.sidecars[number].take().unwrap();
            sidecar.ledger.begin();
            for place in places.iter_mut().skip(number).step_by(PROXIES) {
                place.passes(seconds);
                let store = &mut self.view.store;
                place.tell(&mut self.line, |line| {
                    let (cells, answers) = (&mut store.cells, &mut store.answers);
                    sidecar.ledger.line(line.as_bytes(), cells, answers).unwrap();
                });
            }
            let id = format!("s{number}-v1-1");
            let scraped = Scraped { id, sidecar, took: Duration::ZERO, outcome: Ok(()) };
            self.sidecars[number] = Some(store(&mut self.view, scraped).1);
        }
        if at.is_multiple_of(limits::HISTORY_INTERVAL.as_secs()) {
            let batch = self.view.store.changes(false);
            self.file.write::<History>(&batch).unwrap();
        }
    }
}

/// A line of `/proc/self/status`, MB.
fn memory(line: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|all| all.strip_prefix(line)).unwrap();
    value.trim_matches(|c: char| !c.is_ascii_digit()).parse::<f64>().unwrap() / 1024.0
}

fn hours(name: &str, series: usize, hours: u64) -> String {
    let folder = Folder::new("six-hours");
    let path = folder.join("history.redb");
    let mut places: Vec<Place> = (0..series.div_ceil(SERIES_OF_PLACE)).map(Place::new).collect();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let mut observer = Observer::new(&path);
    let end = START + hours * 3_600;
    let (mut at, mut slowest) = (START, Duration::ZERO);
    while at < end {
        let seconds = if at + FINE_SECONDS < end { COARSE } else { 1 };
        at += seconds;
        let began = clock::now();
        observer.round(at, seconds, &mut places);
        slowest = slowest.max(clock::now() - began);
    }
    let period = observer.view.store.period(hours * 3_600, Some(at), 10, false);
    let mut oldest = period.steps();
    observer.view.store.each(&period, |step, _, _| oldest = oldest.min(step));
    let reach = (period.steps() - oldest) as u64 * period.step;
    let disk = fs::metadata(&path).unwrap().len() as f64 / f64::from(1 << 20);
    format!(
        "{name}: {} series at {PROXIES} sidecars for {hours} h: {:.0} MB of memory at most, {:.0} MB at the end \
         (slots {:.0} MB), {disk:.0} MB on the disk; slots of {} s reach back {reach} s; slowest round {} ms",
        places.len() * SERIES_OF_PLACE,
        memory("VmHWM:") - before,
        memory("VmRSS:") - before,
        observer.view.store.bytes() as f64 / f64::from(1 << 20),
        period.step,
        slowest.as_millis(),
    )
}

#[test]
#[ignore = "a bench: `cargo xtask bench store`"]
fn fifty_sidecars() {
    println!("{}", hours("all series in use", 3_000, 6));
    println!("{}", hours("far more than fits", 150_000, 1));
}
