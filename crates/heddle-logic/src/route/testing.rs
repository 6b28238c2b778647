//! A request made of values, for tests.

use std::collections::BTreeMap;

use super::RequestView;

#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) authority: String,
    pub(crate) headers: BTreeMap<String, Vec<String>>,
}

impl Asked {
    pub(crate) fn of(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            target: target.into(),
            authority: "reviews".into(),
            headers: BTreeMap::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::of("GET", target)
    }

    pub(crate) fn host(self, authority: &str) -> Self {
        Self { authority: authority.into(), ..self }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.entry(name.into()).or_default().push(value.into());
        self
    }
}

impl RequestView for Asked {
    fn method(&self) -> &str {
        &self.method
    }
    fn target(&self) -> &str {
        &self.target
    }
    fn path(&self) -> &[u8] {
        self.target.split(['?', '#']).next().unwrap_or_default().as_bytes()
    }
    fn authority(&self) -> &str {
        &self.authority
    }
    fn scheme(&self) -> &str {
        "http"
    }
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool {
        self.headers.get(name).is_some_and(|lines| lines.iter().any(|value| test(value)))
    }
}
