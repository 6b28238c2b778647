//! What a checked HTTP rule does with requests besides choosing where they go, into its nouns. A value
//! that is there is well formed.

use std::{collections::BTreeMap, time::Duration};

use super::parts::string_match;
use crate::{
    discovery::{
        Answer, CorsPolicy, DirectResponse, HeaderOperations, HeaderRules, PathRewrite, Redirect,
        RedirectPath, RegexRewrite, Retries, Rewrite, StringMatch, Traffic,
    },
    field_name::delimits_messages,
    yaml::{base64, node::Node, value},
};

/// Status of a redirect that names none.
const MOVED_PERMANENTLY: u16 = 301;

/// What is repeated where a rule does not say: Istio's own choice, which holds nothing that a server
/// may have begun to work on.
const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled";

pub(super) fn read(route: &Node) -> Traffic {
    let redirect = route.get("redirect").map(|node| Answer::Redirect(redirect(node)));
    let direct = route.get("directResponse").map(|node| Answer::Direct(direct_response(node)));
    Traffic {
        answer: redirect.or(direct),
        rewrite: route.get("rewrite").map(rewrite),
        headers: route.get("headers").map(headers),
        // Nothing is a limit too: a delegate may lift the one of the rule that names it.
        timeout: duration(route, "timeout"),
        retries: route.get("retries").map(retries),
        cors: route.get("corsPolicy").map(cors),
        mirrors: Vec::new(),
        absent_status: None,
    }
}

fn text(node: &Node, key: &str) -> Option<String> {
    node.get(key).map(|text| text.text().to_owned()).filter(|text| !text.is_empty())
}

fn number<T: std::str::FromStr>(node: &Node, key: &str) -> Option<T> {
    node.text_of(key).parse().ok()
}

fn duration(node: &Node, key: &str) -> Option<Duration> {
    value::duration(node.text_of(key)).ok()
}

fn redirect(node: &Node) -> Redirect {
    let whole = text(node, "uri").map(RedirectPath::Whole);
    Redirect {
        path: whole.or_else(|| text(node, "prefixRewrite").map(RedirectPath::Prefix)),
        authority: text(node, "authority"),
        port: number(node, "port"),
        scheme: text(node, "scheme"),
        status: number(node, "redirectCode").unwrap_or(MOVED_PERMANENTLY),
        drops_port: false,
    }
}

fn direct_response(node: &Node) -> DirectResponse {
    let body = node.get("body").map(|body| match body.get("bytes") {
        Some(bytes) => base64::decode(bytes.text()).unwrap_or_default(),
        None => body.text_of("string").as_bytes().to_vec(),
    });
    DirectResponse {
        status: number(node, "status").unwrap_or_default(),
        body: body.unwrap_or_default(),
    }
}

fn rewrite(node: &Node) -> Rewrite {
    let regex = node.get("uriRegexRewrite").map(|regex| {
        PathRewrite::Regex(RegexRewrite {
            pattern: regex.text_of("match").to_owned(),
            substitution: regex.text_of("rewrite").to_owned(),
        })
    });
    Rewrite {
        path: regex.or_else(|| text(node, "uri").map(PathRewrite::Prefix)),
        authority: text(node, "authority"),
    }
}

/// Host and `:authority` of requests are no fields but where the request goes; what delimits a message
/// is left as it is, and noted where it is checked.
pub(super) fn headers(node: &Node) -> HeaderRules {
    let request = node.get("request");
    let authority = ["set", "add"]
        .into_iter()
        .filter_map(|operation| request?.get(operation))
        .flat_map(Node::entries)
        .find(|entry| names_authority(&entry.key));
    HeaderRules {
        request: request.map(operations).unwrap_or_default(),
        response: node.get("response").map(operations).unwrap_or_default(),
        authority: authority.map(|entry| entry.value.text().to_owned()),
    }
}

/// Does this field say whom a request is for?
pub(super) fn names_authority(name: &str) -> bool {
    name == ":authority" || name.eq_ignore_ascii_case("host")
}

fn may_change(name: &str) -> bool {
    !delimits_messages(name) && !name.starts_with(':')
}

fn operations(node: &Node) -> HeaderOperations {
    let values = |key: &str| -> BTreeMap<_, _> {
        let entries = node.get(key).map_or(&[][..], Node::entries).iter();
        let entries = entries.filter(|entry| may_change(&entry.key));
        entries.map(|e| (e.key.to_ascii_lowercase(), e.value.text().to_owned())).collect()
    };
    let removed = node.items_of("remove").iter().map(Node::text).filter(|name| may_change(name));
    HeaderOperations {
        remove: removed.map(str::to_ascii_lowercase).collect(),
        set: values("set"),
        add: values("add"),
    }
}

fn retries(node: &Node) -> Retries {
    let written = Some(node.text_of("retryOn")).filter(|written| !written.trim().is_empty());
    let words = written.unwrap_or(RETRY_ON).split(',').map(str::trim);
    let words = words.filter(|word| !word.is_empty());
    let (statuses, conditions): (Vec<_>, Vec<_>) =
        words.map(|word| word.parse::<u16>().map_err(|_| word.to_owned())).partition(Result::is_ok);
    Retries {
        attempts: number(node, "attempts").unwrap_or(0),
        per_try_timeout: duration(node, "perTryTimeout").filter(|limit| !limit.is_zero()),
        conditions: conditions.into_iter().filter_map(Result::err).collect(),
        statuses: statuses.into_iter().filter_map(Result::ok).collect(),
        backoff: duration(node, "backoff"),
        same_endpoint: node.text_of("retryIgnorePreviousHosts").eq_ignore_ascii_case("false"),
        any_method: false,
        other_localities: node.text_of("retryRemoteLocalities").eq_ignore_ascii_case("true"),
    }
}

fn cors(node: &Node) -> CorsPolicy {
    let joined = |key: &str| {
        let all: Vec<_> = node.items_of(key).iter().map(Node::text).collect();
        all.join(",")
    };
    let origins: Vec<_> = node.items_of("allowOrigins").iter().filter_map(string_match).collect();
    let older = node.items_of("allowOrigin").iter();
    CorsPolicy {
        origins: match origins.is_empty() {
            true => older.map(|text| StringMatch::Exact(text.text().to_owned())).collect(),
            false => origins,
        },
        methods: joined("allowMethods"),
        headers: joined("allowHeaders"),
        expose: joined("exposeHeaders"),
        max_age: duration(node, "maxAge").map(|age| age.as_secs()),
        credentials: node.text_of("allowCredentials").eq_ignore_ascii_case("true"),
        keeps_unmatched: node.text_of("unmatchedPreflights") == "IGNORE",
    }
}
