//! Whole queries over series that rise evenly.

use std::time::Duration;

use heddle_runtime::clock;
use proptest::prelude::*;

use super::{
    QueryError,
    curve::{Curve, Measured, Stretch, is_absent},
    evaluate::{Loaded, evaluate},
    labels::{Labels, Matcher},
    lexer, parse,
    parser::parse_selectors,
    value::Value,
};
use crate::limits;

/// Seconds that were measured.
const MEASURED: u32 = 600;

/// Series by a selector that has all of their labels, with how much they count per second.
const SERIES: [(&str, f64); 8] = [
    (r#"calls{to="a",code="200",version="v1"}"#, 6.0),
    (r#"calls{to="a",code="500",version="v1"}"#, 2.0),
    (r#"calls{to="b",code="200",version="v2"}"#, 10.0),
    (r#"weight{to="a",team="red"}"#, 1.0),
    (r#"weight{to="b",team="blue"}"#, 2.0),
    (r#"ms_bucket{to="a",le="10"}"#, 5.0),
    (r#"ms_bucket{to="a",le="20"}"#, 9.0),
    (r#"ms_bucket{to="a",le="+Inf"}"#, 10.0),
];

fn labels(selector: &str) -> Labels {
    let (name, rest) = selector.split_once('{').unwrap();
    let mut labels = Labels::default();
    labels.set("__name__", name);
    for pair in rest.trim_end_matches('}').split(',') {
        let (name, value) = pair.split_once('=').unwrap();
        labels.set(name, value.trim_matches('"'));
    }
    labels
}

fn loaded(matchers: &[Matcher]) -> Loaded {
    let second = |n: u32| Stretch { from: f64::from(n), to: f64::from(n + 1) };
    let measured = Measured::new((0..MEASURED).map(second).collect(), 1.0);
    let all = SERIES.iter().map(|(selector, rate)| (labels(selector), *rate));
    let wanted = all.filter(|(labels, _)| {
        matchers.iter().all(|matcher| matcher.matches(labels.get(&matcher.name)))
    });
    let curve = |(labels, rate): (Labels, f64)| {
        let points = (0..MEASURED).map(|n| (n, rate * f64::from(n + 1))).collect();
        Curve { labels, is_gauge: false, first: 0, points }
    };
    Loaded { measured, curves: wanted.map(curve).collect() }
}

fn value(query: &str, times: &[f64]) -> Result<Value, QueryError> {
    let query = parse(query)?;
    let all: Vec<Loaded> =
        query.selectors.iter().map(|selector| loaded(&selector.matchers)).collect();
    evaluate(&query, &all, times, clock::now() + Duration::from_secs(60))
}

/// A query's answer at second 500, in words.
fn told(query: &str) -> Vec<String> {
    let word = |value: f64| format!("{}", (value * 1e6).round() / 1e6);
    match value(query, &[500.0]).unwrap_or_else(|error| panic!("{query}: {error}")) {
        Value::Scalar(values) => vec![word(values[0])],
        Value::Text(text) => vec![text],
        Value::Matrix(matrix) => vec![format!("{} samples", matrix[0].1.len())],
        Value::Vector(vector) => {
            let there = vector.iter().filter(|series| !is_absent(series.values[0]));
            there
                .map(|series| {
                    let pairs = series.labels.iter().map(|(name, value)| format!("{name}={value}"));
                    let pairs = pairs.collect::<Vec<_>>().join(",");
                    format!("{{{pairs}}} {}", word(series.values[0]))
                })
                .collect()
        }
    }
}

#[test]
fn queries_come_to_what_prometheus_makes_of_them() {
    let cases: &[(&str, &[&str])] = &[
        ("1 + 2 * 3 ^ 2 - -1", &["20"]),
        ("2 ^ 3 ^ 2", &["512"]),
        ("-2 ^ 2", &["-4"]),
        ("time()", &["500"]),
        ("sum(calls)", &["{} 9000"]),
        ("sum(calls offset 100s)", &["{} 7200"]),
        ("calls{to=\"b\"}", &["{__name__=calls,code=200,to=b,version=v2} 5000"]),
        ("sum(rate(calls[1m]))", &["{} 18"]),
        ("sum(irate(calls[1m]))", &["{} 18"]),
        ("sum(increase(calls{code=~\"5..\"}[100s]))", &["{} 200"]),
        ("sum by (to) (rate(calls[1m]))", &["{to=a} 8", "{to=b} 10"]),
        ("sum(rate(calls[1m])) without (code, version)", &["{to=a} 8", "{to=b} 10"]),
        ("avg(rate(calls{to=\"a\"}[1m]))", &["{} 4"]),
        ("min(rate(calls[1m]))", &["{} 2"]),
        ("max(rate(calls[1m]))", &["{} 10"]),
        ("count by (code) (calls)", &["{code=200} 2", "{code=500} 1"]),
        ("topk(1, sum by (to) (rate(calls[1m])))", &["{to=b} 10"]),
        ("bottomk(1, rate(calls[1m]))", &["{code=500,to=a,version=v1} 2"]),
        (
            "sum by (to) (rate(calls{code=\"500\"}[1m])) / sum by (to) (rate(calls[1m]))",
            &["{to=a} 0.25"],
        ),
        ("sum(rate(calls{code=\"404\"}[1m])) or vector(0)", &["{} 0"]),
        ("sum by (to) (rate(calls[1m])) > 9", &["{to=b} 10"]),
        ("9 < sum by (to) (rate(calls[1m]))", &["{to=b} 10"]),
        ("sum by (to) (rate(calls[1m])) > bool 9", &["{to=a} 0", "{to=b} 1"]),
        ("sum by (to) (rate(calls[1m])) and on (to) weight{team=\"red\"}", &["{to=a} 8"]),
        ("sum by (to) (rate(calls[1m])) unless on (to) weight{team=\"red\"}", &["{to=b} 10"]),
        (
            "rate(calls[1m]) * on (to) group_left (team) rate(weight[1m])",
            &[
                "{code=200,team=red,to=a,version=v1} 6",
                "{code=500,team=red,to=a,version=v1} 2",
                "{code=200,team=blue,to=b,version=v2} 20",
            ],
        ),
        (
            "rate(weight[1m]) * ignoring (team) sum by (to) (rate(calls[1m]))",
            &["{to=a} 8", "{to=b} 20"],
        ),
        ("histogram_quantile(0.5, rate(ms_bucket[1m]))", &["{to=a} 10"]),
        ("histogram_quantile(0.7, sum by (le) (rate(ms_bucket[1m])))", &["{} 15"]),
        ("histogram_quantile(0.99, sum by (le) (rate(ms_bucket[1m])))", &["{} 20"]),
        (
            "label_replace(sum by (to) (calls), \"at\", \"x-$1\", \"to\", \"(a|c)\")",
            &["{at=x-a,to=a} 4000", "{to=b} 5000"],
        ),
        (
            "label_join(sum by (to, code) (calls{to=\"b\"}), \"at\", \".\", \"to\", \"code\")",
            &["{at=b.200,code=200,to=b} 5000"],
        ),
        ("round(sum(rate(calls[1m])) / 7, 0.01)", &["{} 2.57"]),
        ("clamp_max(sum by (to) (rate(calls[1m])), 9)", &["{to=a} 8", "{to=b} 9"]),
        ("clamp(sum(rate(calls[1m])), 20, 30)", &["{} 20"]),
        ("scalar(sum(calls)) + 1", &["9001"]),
        ("absent(nothing)", &["{} 1"]),
        ("sort_desc(sum by (to) (calls))", &["{to=b} 5000", "{to=a} 4000"]),
        ("weight{team!~\"re.\"}[10s]", &["10 samples"]),
        ("'a\\'b'", &["a'b"]),
        ("SUM(calls) BY (code) # all of them", &["{code=200} 8000", "{code=500} 1000"]),
    ];
    for (query, wanted) in cases {
        assert_eq!(told(query), *wanted, "{query}");
    }
}

#[test]
fn what_is_no_number_out_of_bounds_or_absent_comes_to_what_prometheus_makes_of_it() {
    let cases: &[(&str, &[&str])] = &[
        ("clamp(sum(calls), 5, 1)", &[]),
        ("clamp_max(sum(calls) * NaN, 9)", &["{} NaN"]),
        ("rate(calls[1m]) > on (to) 4 * rate(weight[1m])", &["{to=a} 6", "{to=b} 10"]),
        ("absent(nothing{to=\"a\",code=~\"5..\",x=\"1\",x=\"2\"})", &["{to=a} 1"]),
        ("histogram_quantile(-1, ms_bucket)", &["{to=a} -inf"]),
        ("histogram_quantile(2, ms_bucket{le=\"10\"})", &["{to=a} inf"]),
        (
            "histogram_quantile(0, ms_bucket{le!=\"10\"} or ms_bucket{le=\"10\"} * 0)",
            &["{to=a} NaN"],
        ),
        (
            "sort(label_replace(vector(NaN), \"to\", \"n\", \"\", \"\") or sum by (to) (calls))",
            &["{to=a} 4000", "{to=b} 5000", "{to=n} NaN"],
        ),
        (
            "sort_desc(label_replace(vector(NaN), \"to\", \"n\", \"\", \"\") or sum by (to) (calls))",
            &["{to=b} 5000", "{to=a} 4000", "{to=n} NaN"],
        ),
    ];
    for (query, wanted) in cases {
        assert_eq!(told(query), *wanted, "{query}");
    }
}

#[test]
fn a_range_is_worked_out_at_each_moment() {
    let Value::Vector(vector) = value("rate(calls{to=\"b\"}[1m])", &[0.0, 30.0, 90.0]).unwrap()
    else {
        panic!("no vector")
    };
    let values = &vector[0].values;
    assert!(is_absent(values[0]), "it was not there yet");
    assert_eq!(values[1..], [5.0, 10.0], "half of the first minute was not measured");
}

#[test]
fn what_is_wrong_or_not_supported_is_told() {
    for (query, reason) in [
        ("", "unexpected end of input"),
        ("sum(", "unexpected end of input"),
        ("{}", "at least one non-empty matcher"),
        ("{a=~\".*\"}", "at least one non-empty matcher"),
        ("calls{to=\"a}", "unterminated quoted string"),
        ("calls{to=~\"(\"}", "none of RE2's syntax"),
        ("deriv(calls[5m])", "unknown function with name \"deriv\"; supported are"),
        ("rate(calls)", "expected type range vector, got instant vector"),
        ("sum(calls[5m])", "expected type instant vector, got range vector"),
        ("abs(rate(calls[1m])[5m:1m])", "subqueries are not supported"),
        ("calls[5m:1m]", "subqueries are not supported"),
        ("calls @ 5", "unexpected character `@`"),
        ("1 > 2", "must use BOOL"),
        ("1 and calls", "set operators are for instant vectors only"),
        ("calls[300y]", "duration out of range"),
        ("calls[5]", "expected a duration such as 5m"),
        ("topk(calls)", "expected 2, got 1"),
        ("round()", "expected 1 argument(s)"),
    ] {
        let error = parse(query).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(reason), "{query}: {error}");
    }
    for (query, reason) in [
        ("calls * on (to) rate(weight[1m])", "many-to-one matching must be explicit"),
        ("weight * on (to) calls", "duplicate series for the match group"),
        ("label_replace(calls, \"code\", \"\", \"code\", \".*\")", "same labelset"),
        ("label_replace(calls, \"1\", \"\", \"code\", \".*\")", "invalid label name"),
    ] {
        let error = value(query, &[500.0]).err().map(|error| error.to_string());
        assert!(error.unwrap_or_default().contains(reason), "{query}");
    }
}

#[test]
fn a_query_is_bounded_in_depth_length_and_size() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(500), close.repeat(500));
    for query in [deep("(", ")"), deep("-", ""), deep("1+", ""), deep("1^", ""), deep("abs(", ")")]
    {
        assert!(parse(&query).unwrap_err().to_string().contains("levels deep"), "{query}");
    }
    assert!(parse(&" ".repeat(20_000)).is_err());
    // A chain in each pair of brackets: their links add up.
    let chains = |levels: usize| {
        (0..levels).fold("1".to_owned(), |inner, _| format!("({inner}{})", "+1".repeat(10)))
    };
    assert_eq!(told(&chains(12)), ["121"]);
    let error = parse(&chains(13)).unwrap_err().to_string();
    assert!(error.contains("a tree of more than 128 levels"), "{error}");
    let many = format!("calls{{{}}}", "to=~\"a\",".repeat(65));
    assert!(parse(&many).unwrap_err().to_string().contains("64 matchers"));
    let halves = [(); 2].map(|()| format!("calls{{{}}}", "to=~\"a\",".repeat(33)));
    assert!(parse_selectors(&halves).is_err() && parse_selectors(&halves[..1]).is_ok());
    let far = "x".repeat(1_000);
    let joined = format!("label_join(calls{{to=\"b\"}}, \"at\", \"{far}\", \"to\", \"code\")");
    let Value::Vector(vector) = value(&joined, &[500.0]).unwrap() else { panic!("no vector") };
    assert_eq!(vector[0].labels.get("at").len(), limits::NAME_BYTES_MAX);
    assert!(parse(&format!("calls{}", "or calls ".repeat(40))).is_err());
    let moments: Vec<f64> = (0..1_000_000).map(f64::from).collect();
    assert_eq!(value("{to=~\".+\"}", &moments).unwrap_err(), QueryError::too_many_samples());
    let query = parse("sum(calls)").unwrap();
    let over = evaluate(&query, &[loaded(&[])], &[1.0], clock::now());
    assert_eq!(over.unwrap_err(), QueryError::Timeout);
}

#[test]
fn durations_are_read_as_prometheus_reads_them() {
    let known =
        [("5m", 300.0), ("1h30m", 5_400.0), ("90s", 90.0), ("1500ms", 1.5), ("1d", 86_400.0)];
    for (text, seconds) in known {
        assert_eq!(lexer::duration(text), Some(seconds), "{text}");
    }
    for text in ["", "5", "m", "5x", "5m3", "-5m", "300y", &format!("{}y", "9".repeat(400))] {
        assert_eq!(lexer::duration(text), None, "{text}");
    }
}

proptest! {
    /// Words of the language in any order are a query or an error, and never more.
    #[test]
    fn nothing_that_is_written_does_harm(words in prop::collection::vec(prop_oneof![
        Just("sum"), Just("("), Just(")"), Just("calls"), Just("weight"), Just("[1m]"), Just("by"),
        Just("on"), Just("group_left"), Just("{"), Just("}"), Just("to"), Just("="), Just("=~"),
        Just("\"a\""), Just(","), Just("/"), Just("-"), Just("or"), Just("rate"), Just("1"),
        Just("histogram_quantile"), Just("bool"), Just(">"), Just("offset"), Just("5m"), Just("topk"),
        Just("inf"), Just("label_replace"), Just("'\\"), Just("é"),
    ], 0..24)) {
        let text = words.join(" ");
        let _either = value(&text, &[500.0, 501.0]);
        let _either = parse_selectors(&[text]);
    }
}
