//! Expressions of `Telemetry`: the part of CEL by which access logs are filtered and metrics get tags.
//!
//! What is written is read, its names are looked up and its types are checked once, here; what is beyond this
//! part of the language is refused by name. What an expression comes to is `heddle_logic::expression`'s.

mod parse;
mod terms;
mod token;

pub use self::terms::{Attribute, Expression, Literal, Operator, PeerField, Sort, Test};

/// Longest expression in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 2_048;

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong or beyond this part of the language, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!(
                "the expression has {} bytes, more than the {EXPRESSION_BYTES_MAX} allowed",
                text.len()
            ));
        }
        parse::parse(text)
    }

    /// Reads one that says yes or no.
    ///
    /// # Errors
    /// As for [`Self::parse`], and that it says something else.
    pub fn parse_condition(text: &str) -> Result<Self, String> {
        let read = Self::parse(text)?;
        match read.sort() {
            Sort::Bool => Ok(read),
            sort => Err(format!(
                "`{text}` is {}, not a condition: compare it with something, e.g. `response.code >= 400`",
                sort.name()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        for text in [
            "response.code >= 400",
            "response.code >= 400 || xds.cluster_name == 'BlackHoleCluster' || xds.cluster_name == \"PassthroughCluster\"",
            "connection.mtls && request.url_path.contains('v1beta3')",
            "!has(response.code) || !(response.code < 299)",
            "has(request.headers['x-debug'])",
            "'x-debug' in request.headers",
            "request.headers['user-agent'] != 'kube-probe/1.30' && request.method in ['POST', 'PUT']",
            "request.headers.referer.startsWith('http')",
            "request.duration > duration('200ms')",
            "request.path.matches('^/api/v[0-9]+')",
            "size(request.path) > 100 && request.path.size() < 4000",
            "response.code == 503 ? true : response.flags != 0",
            "source.port + 1 > 1024",
        ] {
            assert!(
                Expression::parse_condition(text).is_ok(),
                "{text}: {:?}",
                Expression::parse(text)
            );
        }
        let tag = "has(request.host) ? request.host : \"unknown\"";
        assert_eq!(Expression::parse(tag).unwrap().sort(), Sort::Text);
        for text in [
            "string(destination.port)",
            "filter_state.upstream_peer.labels['app.kubernetes.io/name']",
            "has(filter_state.downstream_peer.app) ? filter_state.downstream_peer.app : 'nobody'",
            "filter_state.downstream_peer.namespace + '/' + filter_state.downstream_peer.workload",
            "'responseClass' + string(response.code)",
        ] {
            assert_eq!(Expression::parse(text).map(|read| read.sort()), Ok(Sort::Text), "{text}");
        }
    }

    #[test]
    fn what_is_beyond_is_refused_by_name() {
        for (text, words) in [
            ("request.time > 5", "`request.time` is nothing that is known"),
            ("response.cod >= 400", "did you mean `response.code`?"),
            ("upstream_peer.labels['app']", "`upstream_peer.labels`"),
            ("request.headers.exists(h, h == 'a')", "`exists`"),
            ("filter_state.upstream_peer.owner", "known of a peer"),
            ("filter_state.upstream_peer.labels", "asked for a label by its name"),
            ("request.path.split('/')", "`split`"),
            ("response.code >= '400'", "a number and a text"),
            ("response.code", "not a condition"),
            ("response.code = 400", "`=`"),
            ("request.path.startsWith(5)", "a text"),
            ("response.code - 1 > 3", "`-`"),
            ("response.code >=", "ends"),
            ("(response.code > 1", "`)`"),
            ("'abc", "no end"),
            ("timestamp('x') == 1", "`timestamp(…)`"),
            ("has('a')", "`has` takes"),
            ("response.code in []", "empty list"),
            ("response.code in ['a']", "a number and a text"),
            ("request.path.matches('(')", "regex"),
            ("request.path.matches(request.host)", "`matches` takes"),
            ("response.code > 99999999999999999999", "number"),
            ("request.duration > duration('5')", "duration"),
            ("true && 1", "a boolean"),
            ("", "empty"),
        ] {
            let error = Expression::parse_condition(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn neither_length_nor_depth_is_without_end() {
        let deep = format!("{}true{}", "(".repeat(900), ")".repeat(900));
        assert!(Expression::parse(&deep).unwrap_err().contains("nested"), "{deep}");
        let nots = format!("{}true", "!".repeat(2_000));
        assert!(Expression::parse(&nots).unwrap_err().contains("nested"));
        assert!(Expression::parse(&"a".repeat(3_000)).unwrap_err().contains("2048"));
        let long = vec!["response.code == 1"; 80].join(" || ");
        assert!(Expression::parse(&long).is_ok());
    }
}
