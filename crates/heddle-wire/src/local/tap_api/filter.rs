//! Which calls somebody wants to see: as parameters of a query, and as values that can be matched.

use std::{fmt, time::Duration};

use heddle_model::{
    secret,
    yaml::expression::{Attribute, Expression},
};
use serde::{Deserialize, Serialize};

use crate::percent::decode_form;

/// Longest value of a parameter, bytes.
const VALUE_BYTES_MAX: usize = 1_024;
/// Most fields whose values can be asked for, and most statuses and methods.
const MANY_MAX: usize = 16;

/// On which side of a call a sidecar stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The caller's.
    Client,
    /// The callee's.
    #[default]
    Server,
}

impl Side {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// Which calls somebody wants to see: those that meet all of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TapFilter {
    /// As which side the sidecar is asked; `None` for both.
    pub side: Option<Side>,
    /// Of the caller's side only what the callee's does not tell.
    pub unseen: bool,
    /// Calls of this service or workload.
    pub to: Option<Name>,
    /// Calls of what is in this namespace.
    pub namespace: Option<String>,
    /// Calls by this service or workload.
    pub from: Option<Name>,
    /// With one of these statuses; empty for any.
    pub status: Vec<StatusFilter>,
    /// Of these paths.
    pub path: Option<PathFilter>,
    /// With one of these methods; empty for any.
    pub method: Vec<String>,
    /// That took longer.
    pub slower_than: Option<Duration>,
    /// Fields to show, in lower case.
    pub headers: Vec<String>,
    /// That meet this condition, as in the filter of an access log.
    pub expression: Option<String>,
}

/// A parameter that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// Its name, which is also that of the flag.
    pub parameter: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.parameter, self.reason)
    }
}

impl std::error::Error for FilterError {}

impl TapFilter {
    /// Reads a query, percent-encoded.
    ///
    /// # Errors
    /// [`FilterError`] for the first parameter that is not known or has no value that it can have.
    pub fn parse(query: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = |reason: String| FilterError { parameter: cut(name, 40), reason };
            let value =
                decode_form(value).ok_or_else(|| wrong("is not well encoded".to_owned()))?;
            filter.set(name, &value).map_err(wrong)?;
        }
        Ok(filter)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("is longer than {VALUE_BYTES_MAX} bytes"));
        }
        match name {
            "side" => self.side = Some(side(value)?),
            "unseen" => self.unseen = value == "1",
            "to" => self.to = Some(Name::parse(value)?),
            "namespace" => self.namespace = Some(value.to_owned()),
            "from" => self.from = Some(Name::parse(value)?),
            "status" => self.status = several(value, StatusFilter::parse)?,
            "path" => self.path = Some(PathFilter::parse(value)?),
            "method" => self.method = several(value, method)?,
            "slower-than" => self.slower_than = Some(duration(value)?),
            "header" => {
                if self.headers.len() >= MANY_MAX {
                    return Err(format!("{MANY_MAX} fields can be shown at once"));
                }
                self.headers.push(field(value)?);
            }
            "filter" => {
                condition(value)?;
                self.expression = Some(value.to_owned());
            }
            _ => {
                return Err("is no parameter: there are to, from, namespace, side, status, path, method, slower-than, header and filter".to_owned());
            }
        }
        Ok(())
    }

    /// As a query, percent-encoded; what [`Self::parse`] reads.
    #[must_use]
    pub fn query(&self) -> String {
        let mut query = String::new();
        let mut add = |name: &str, value: &str| {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            encode(value, &mut query);
        };
        if let Some(side) = self.side {
            add("side", side.as_str());
        }
        if self.unseen {
            add("unseen", "1");
        }
        if let Some(to) = &self.to {
            add("to", to.as_str());
        }
        if let Some(namespace) = &self.namespace {
            add("namespace", namespace);
        }
        if let Some(from) = &self.from {
            add("from", from.as_str());
        }
        if !self.status.is_empty() {
            let all: Vec<String> = self.status.iter().map(ToString::to_string).collect();
            add("status", &all.join(","));
        }
        if let Some(PathFilter(path)) = &self.path {
            add("path", path);
        }
        if !self.method.is_empty() {
            add("method", &self.method.join(","));
        }
        if let Some(slower) = self.slower_than {
            add("slower-than", &format!("{}us", slower.as_micros()));
        }
        for name in &self.headers {
            add("header", name);
        }
        if let Some(expression) = &self.expression {
            add("filter", expression);
        }
        query
    }
}

/// Reads a condition, which may not ask for what is never shown.
///
/// # Errors
/// What would be right.
pub fn condition(text: &str) -> Result<Expression, String> {
    let read = Expression::parse_condition(text)?;
    let mut hidden = None;
    read.attributes(&mut |attribute| match attribute {
        Attribute::RequestHeader(name) | Attribute::ResponseHeader(name)
            if secret::is_secret(name) =>
        {
            hidden.get_or_insert_with(|| name.clone());
        }
        _ => {}
    });
    match hidden {
        Some(name) => Err(format!("the header `{name}` holds a secret, which is not looked at")),
        None => Ok(read),
    }
}

/// A service or a workload, as somebody calls it: `reviews`, `reviews.shop`, its full name, a host outside, a
/// workload's name or id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// Reads it.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '*' | ':');
        if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
            return Err(format!(
                "`{}` is no name: use that of a service or a workload, e.g. reviews or reviews.shop",
                cut(text, 60)
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    /// As it was written, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does it mean somebody with one of these names, of this namespace? A service's name may be its full one.
    #[must_use]
    pub fn means(&self, names: [Option<&str>; 3], namespace: Option<&str>) -> bool {
        let wanted = self.0.as_str();
        names.into_iter().flatten().any(|name| {
            let name = name.to_ascii_lowercase();
            if name == wanted {
                return true;
            }
            // `reviews` and `reviews.shop` mean `reviews.shop.svc.cluster.local`.
            let short = name.split_once(".svc.").map_or(name.as_str(), |(short, _)| short);
            let (first, home) = match short.split_once('.') {
                Some((first, home)) if short.len() < name.len() => (first, Some(home)),
                _ => (short, namespace),
            };
            first == wanted
                || short == wanted
                || home.is_some_and(|home| {
                    wanted.strip_suffix(home).and_then(|rest| rest.strip_suffix('.')) == Some(first)
                })
        })
    }
}

/// Statuses that are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusFilter {
    /// From this one to that.
    Range(u16, u16),
    /// Whatever went wrong: 5xx, a status of gRPC that is not 0, nothing answered, refused.
    Failed,
}

impl StatusFilter {
    /// Reads `503`, `5xx`, `500-504`, `failed` or `none`.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let known = |status: &u16| (100..=599).contains(status);
            let lower = text.to_ascii_lowercase();
            match lower.as_str() {
                "failed" => return Some(Self::Failed),
                "none" => return Some(Self::Range(0, 0)),
                _ => {}
            }
            if let Some(class) = lower.strip_suffix("xx") {
                let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
                return Some(Self::Range(class * 100, class * 100 + 99));
            }
            let (first, last) = lower.split_once('-').unwrap_or((&lower, &lower));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            (known(&first) && known(&last) && first <= last).then_some(Self::Range(first, last))
        };
        read().ok_or_else(|| {
            format!(
                "`{}` is no status: use e.g. 503, 5xx, 500-504, none (nothing was answered) or failed (5xx, refused, broken off, an error of gRPC)",
                cut(text, 40)
            )
        })
    }

    /// Is a call meant that ended so?
    #[must_use]
    pub fn holds(self, status: u16, failed: bool) -> bool {
        match self {
            Self::Range(first, last) => (first..=last).contains(&status),
            Self::Failed => failed,
        }
    }
}

impl fmt::Display for StatusFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("failed"),
            Self::Range(0, _) => f.write_str("none"),
            Self::Range(first, last) if first == last => write!(f, "{first}"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// Paths that are meant: those that begin so; with a `*` in it, those that are so as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFilter(String);

impl PathFilter {
    /// Reads it.
    ///
    /// # Errors
    /// What would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with(['/', '*']) && !text.contains('?') {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "`{}` is no path: it begins with / and has no query, e.g. /reviews, /users/*/cart or *.css",
            cut(text, 60)
        ))
    }

    /// Is the path of this target meant?
    #[must_use]
    pub fn holds(&self, target: &str) -> bool {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if !self.0.contains('*') {
            return path.starts_with(&self.0);
        }
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| path.strip_prefix(first)) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            // The first place there is leaves most for the others.
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

fn several<T>(value: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let all: Vec<T> = value.split(',').map(|one| read(one.trim())).collect::<Result<_, _>>()?;
    if all.len() > MANY_MAX {
        return Err(format!("{MANY_MAX} can be named at once"));
    }
    Ok(all)
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "client" => Ok(Side::Client),
        "server" => Ok(Side::Server),
        _ => Err(format!("`{}` is no side: use client or server", cut(text, 40))),
    }
}

/// A method is a token (RFC 9110 §9.1), and told in upper case.
///
/// # Errors
/// What would be right.
pub fn method(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || text.len() > 40 || !text.chars().all(fits) {
        return Err(format!("`{}` is no method: use e.g. GET or POST", cut(text, 40)));
    }
    Ok(text.to_ascii_uppercase())
}

/// The name of a field (RFC 9110 §5.1), told in lower case.
///
/// # Errors
/// What would be right.
pub fn field(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if text.is_empty() || text.len() > 100 || !text.chars().all(fits) {
        return Err(format!("`{}` is no name of a header: use e.g. user-agent", cut(text, 40)));
    }
    Ok(text.to_ascii_lowercase())
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{}` is no duration: use e.g. 200ms or 1.5s", cut(text, 40));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * factor;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// What of a value is repeated in a message: no more than that, and nothing that a terminal obeys.
fn cut(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(most).collect()
}

fn encode(text: &str, query: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/,".contains(&byte) {
            query.push(char::from(byte));
        } else {
            query.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// How a call ended, as far as [`StatusFilter::Failed`] goes by it.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// Was it a request, and no connection?
    pub is_request: bool,
    /// 0 where nothing was answered.
    pub status: u16,
    /// Status of gRPC.
    pub grpc: Option<u32>,
    /// Did the mesh refuse it?
    pub refused: bool,
    /// Was the connection reset, by whichever end?
    pub reset: bool,
}

impl Ending {
    /// Did it go wrong?
    #[must_use]
    pub fn failed(self) -> bool {
        let no_answer = if self.is_request { self.status == 0 } else { self.reset };
        self.status >= 500 || no_answer || self.refused || self.grpc.is_some_and(|one| one != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn a_filter_is_the_same_after_its_query_was_read() {
        let filter = TapFilter {
            side: Some(Side::Client),
            unseen: true,
            to: Some(name("reviews.shop")),
            namespace: Some("shop".to_owned()),
            from: Some(name("web")),
            status: ["5xx", "404", "none", "failed", "500-504"]
                .map(|one| StatusFilter::parse(one).unwrap())
                .to_vec(),
            path: Some(PathFilter::parse("/a b/*&x").unwrap()),
            method: vec!["POST".to_owned(), "GET".to_owned()],
            slower_than: Some(Duration::from_millis(200)),
            headers: vec!["user-agent".to_owned(), "x-a".to_owned()],
            expression: Some("request.method == 'GET' && true".to_owned()),
        };
        assert_eq!(TapFilter::parse(&filter.query()), Ok(filter));
        assert_eq!(TapFilter::parse(""), Ok(TapFilter::default()));
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_name_and_says_what_would_be_right() {
        for (query, parameter, says) in [
            ("status=6xx", "status", "503, 5xx, 500-504"),
            ("status=503-400", "status", "503, 5xx"),
            ("path=reviews", "path", "begins with /"),
            ("path=/a%3Fb", "path", "has no query"),
            ("method=GE%20T", "method", "GET or POST"),
            ("slower-than=fast", "slower-than", "200ms"),
            ("slower-than=-1s", "slower-than", "200ms"),
            ("header=a%3Ab", "header", "user-agent"),
            ("side=both", "side", "client or server"),
            ("to=a/b", "to", "reviews.shop"),
            ("from=", "from", "no name"),
            ("filter=response.code%20%3E", "filter", ""),
            ("filter=request.headers%5B'authorization'%5D%20==%20'a'", "filter", "holds a secret"),
            ("filter=response.headers%5B'set-cookie'%5D%20==%20'a'", "filter", "holds a secret"),
            ("stauts=1", "stauts", "there are to, from"),
            ("path=%zz", "path", "well encoded"),
            ("path=%1b%5b2J", "path", "\u{fffd}[2J"),
        ] {
            let error = TapFilter::parse(query).unwrap_err();
            assert_eq!(error.parameter, parameter, "{query}");
            assert!(error.reason.contains(says), "{query}: {error}");
        }
        let long = format!("path=/{}", "a".repeat(VALUE_BYTES_MAX));
        assert!(TapFilter::parse(&long).is_err());
        assert!(TapFilter::parse(&"header=a&".repeat(MANY_MAX + 1)).is_err());
    }

    #[test]
    fn somebody_is_meant_by_each_of_their_names() {
        let full = Some("reviews.shop.svc.cluster.local");
        let names = [full, Some("reviews-v1"), Some("reviews-v1-1")];
        for meant in [
            "reviews",
            "reviews.shop",
            "reviews.shop.svc.cluster.local",
            "Reviews-v1",
            "reviews-v1.shop",
            "reviews-v1-1",
        ] {
            assert!(name(meant).means(names, Some("shop")), "{meant}");
        }
        for other in ["review", "reviews.other", "shop", "reviews-v2", "v1"] {
            assert!(!name(other).means(names, Some("shop")), "{other}");
        }
        let outside = [Some("api.example.com"), None, None];
        assert!(name("api.example.com").means(outside, None));
        assert!(!name("api").means(outside, None) && !name("example.com").means(outside, None));
    }

    #[test]
    fn a_path_is_a_beginning_or_a_pattern() {
        let holds = |filter: &str, target| PathFilter::parse(filter).unwrap().holds(target);
        assert!(holds("/a", "/a") && holds("/a", "/a/b?x=/c") && !holds("/a", "/b/a"));
        assert!(holds("/u/*/cart", "/u/7/cart") && !holds("/u/*/cart", "/u/7/cart/x"));
        assert!(holds("*.css", "/x/y.css?v=1") && !holds("*.css", "/x/y.css/z"));
        assert!(holds("*", "/") && holds("/a*b*b", "/abb") && !holds("/a*b*b", "/ab"));
    }

    #[test]
    fn statuses_are_numbers_classes_ranges_and_words() {
        let holds = |filter: &str, status, failed| {
            StatusFilter::parse(filter).unwrap().holds(status, failed)
        };
        assert!(holds("5xx", 599, true) && !holds("5xx", 499, false));
        assert!(holds("404", 404, false) && holds("200-204", 202, false));
        assert!(holds("none", 0, true) && !holds("none", 200, false));
        assert!(holds("failed", 200, true) && !holds("failed", 500, false));
    }
}
