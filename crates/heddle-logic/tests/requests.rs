//! Which rule takes which request, from rules as people write them. The first comments of a file in
//! `requests/` are requests with what is right, as Istio and Envoy do it:
//! `# request: GET TARGET | HEADER: VALUE | ... -> RULE [PATH]`, where RULE is a position in `http` or
//! `bad` (refused with 400), and PATH what the service gets, where that is not what was sent.
#![expect(clippy::unwrap_used, reason = "a test's helper fails its test by panicking")]

use std::{fs, path::Path};

use heddle_logic::{Matcher, RequestView, RouteTable, Rule, Selected};
use heddle_model::{
    discovery::{HttpRule, Provenance, RuleAction},
    resource::Spec,
    yaml::parse,
};

struct Request {
    target: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn read(text: &str) -> Self {
        let mut parts = text.split(" | ");
        let target = parts.next().unwrap().strip_prefix("GET ").unwrap().to_owned();
        let header = |part: &str| {
            let (name, value) = part.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Self { target, headers: parts.map(header).collect() }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        "GET"
    }
    fn target(&self) -> &str {
        &self.target
    }
    fn path(&self) -> &[u8] {
        self.target.split(['?', '#']).next().unwrap().as_bytes()
    }
    fn authority(&self) -> &str {
        let host = self.headers.iter().find(|(name, _)| name == "host");
        host.map_or("", |(_, value)| value)
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.headers.iter().any(|(known, value)| known == name && test(value))
    }
}

struct Numbered(usize, Matcher);

impl Rule for Numbered {
    fn matcher(&self) -> &Matcher {
        &self.1
    }
}

fn table(name: &str, text: &str) -> RouteTable<Numbered> {
    let parsed = parse(name, text, "default").unwrap();
    let Spec::VirtualService(service) = &parsed.resources[0].spec else { panic!("{name}") };
    let rule = |(at, route): (usize, &heddle_model::resource::HttpRoute)| {
        let rule = HttpRule {
            provenance: Provenance(format!("{name}#{at}")),
            matches: route.matches.iter().map(|one| one.http.clone()).collect(),
            fault: None,
            action: RuleAction::Refuse(String::new()),
            traffic: Default::default(),
        };
        Numbered(at, Matcher::build(&rule).unwrap())
    };
    RouteTable::new(service.http.iter().enumerate().map(rule).collect())
}

fn answer(table: &RouteTable<Numbered>, request: &Request) -> String {
    let selection = table.select(request);
    let path = selection.path.map(|path| format!(" {path}")).unwrap_or_default();
    match selection.selected {
        Selected::Rule(rule) => format!("{}{path}", rule.0),
        Selected::BadPath(_) => "bad".to_owned(),
        Selected::NoRoute => "none".to_owned(),
        Selected::Default => "default".to_owned(),
    }
}

#[test]
fn each_request_is_taken_by_the_rule_that_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requests");
    let mut asked = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let table = table(&name, &text);
        for line in text.lines().filter_map(|line| line.strip_prefix("# request: ")) {
            let (request, right) = line.rsplit_once(" -> ").unwrap();
            assert_eq!(answer(&table, &Request::read(request)), right, "{name}: {line}");
            asked += 1;
        }
    }
    assert!(asked > 20, "the requests are missing: {asked}");
}
