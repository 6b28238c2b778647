//! The URL of a program that is asked over HTTP for what it keeps.

use std::str::FromStr;

use hyper::Uri;

/// `http[s]://HOST[:PORT][/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceUrl {
    text: String,
    pub(crate) is_https: bool,
    /// A name or an address; of IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Before every path; without a slash at its end.
    pub(crate) prefix: String,
}

impl SourceUrl {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, of IPv6 without brackets, and the port.
    #[must_use]
    pub fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// What the `host` field says.
    pub(crate) fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let usual = if self.is_https { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

impl FromStr for SourceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("`{text}` {what}; give http[s]://HOST[:PORT][/PATH], as http://10.0.0.5:9090")
        };
        let url: Uri = text.parse().map_err(|_| wrong("is no URL"))?;
        let is_https = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("is no URL of http or https")),
        };
        let authority = url.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a password in it, which everybody sees who lists processes"));
        }
        if url.query().is_some() || text.contains('#') {
            return Err(wrong("has a query, but is the address of the program"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        if authority.port_u16().is_none() && authority.as_str().len() > authority.host().len() {
            return Err(wrong("has a port that is no number up to 65535"));
        }
        Ok(Self {
            text: text.to_owned(),
            is_https,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            prefix: url.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_may_have_a_prefix() {
        let read = |text: &str| {
            let url: SourceUrl = text.parse().unwrap();
            (url.is_https, url.authority(), url.port, url.prefix)
        };
        assert_eq!(read("http://p:9090"), (false, "p:9090".into(), 9090, String::new()));
        assert_eq!(read("https://p/prom/"), (true, "p".into(), 443, "/prom".into()));
        assert_eq!(read("http://[::1]:9090/"), (false, "[::1]:9090".into(), 9090, String::new()));
    }

    #[test]
    fn what_is_no_address_is_told_with_what_would_be_right() {
        for text in [
            "",
            "prometheus:9090",
            "ftp://p",
            "http://",
            "http://a:b@p",
            "http://p?x=1",
            "http://p:99999",
            "http://p/#graph",
        ] {
            let error = text.parse::<SourceUrl>().unwrap_err();
            assert!(error.contains("give http[s]://HOST"), "{text}: {error}");
        }
    }
}
