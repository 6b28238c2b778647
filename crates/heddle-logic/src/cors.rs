//! Which scripts of other origins may read answers: what a browser's preflight is answered, and what is
//! added to other answers. Semantics are those of Envoy's filter, which Istio configures.

use heddle_model::{
    discovery::CorsPolicy,
    pattern::{Case, PatternError},
};

use crate::route::{RequestView, Text};

/// A field of an answer.
pub type CorsField = (&'static str, String);

/// A policy, ready to be asked.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Vec<Text>,
    /// One of its conditions means every origin.
    any: bool,
    policy: CorsPolicy,
}

/// What a policy says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsVerdict {
    /// Nothing.
    None,
    /// It is a preflight, and answered here with 200 and these.
    Preflight(Vec<CorsField>),
    /// Its answer gets these in place of its own of the same names.
    Leave(Vec<CorsField>),
}

impl Cors {
    /// Builds the policy's conditions.
    ///
    /// # Errors
    /// [`PatternError`] of one of its regular expressions.
    pub fn build(policy: &CorsPolicy) -> Result<Self, PatternError> {
        let origins = policy.origins.iter().map(|one| Text::build(one, Case::Sensitive));
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        let any = origins.iter().any(|one| one.matches("*"));
        Ok(Self { origins, any, policy: policy.clone() })
    }

    /// What it says about a request.
    #[must_use]
    pub fn verdict(&self, request: &dyn RequestView) -> CorsVerdict {
        let Some(origin) = request.first_header("origin").filter(|origin| !origin.is_empty())
        else {
            return CorsVerdict::None;
        };
        let allowed = self.any || self.origins.iter().any(|one| one.matches(&origin));
        let asked = |name: &str| request.first_header(name).filter(|value| !value.is_empty());
        let method = asked("access-control-request-method");
        match method.filter(|_| request.method() == "OPTIONS") {
            Some(method) if allowed || self.policy.keeps_unmatched => {
                let headers = asked("access-control-request-headers").unwrap_or_default();
                let origin = allowed.then_some(origin);
                CorsVerdict::Preflight(self.preflight(origin, &method, &headers))
            }
            _ if allowed => CorsVerdict::Leave(self.leave(origin)),
            _ => CorsVerdict::None,
        }
    }

    fn preflight(&self, origin: Option<String>, method: &str, headers: &str) -> Vec<CorsField> {
        let CorsPolicy { methods, headers: allowed, max_age, .. } = &self.policy;
        let mut fields: Vec<_> = origin.map(allow_origin).into_iter().collect();
        fields.extend(self.credentials());
        let said = |allowed: &str, asked: &str| match allowed {
            "*" => asked.to_owned(),
            allowed => allowed.to_owned(),
        };
        fields.push(("access-control-allow-methods", said(methods, method)));
        fields.push(("access-control-allow-headers", said(allowed, headers)));
        fields.extend(max_age.map(|age| ("access-control-max-age", age.to_string())));
        fields.retain(|(_, value)| !value.is_empty());
        fields
    }

    fn leave(&self, origin: String) -> Vec<CorsField> {
        let expose = Some(&self.policy.expose).filter(|expose| !expose.is_empty());
        let expose = expose.map(|expose| ("access-control-expose-headers", expose.clone()));
        [Some(allow_origin(origin)), self.credentials(), expose].into_iter().flatten().collect()
    }

    fn credentials(&self) -> Option<CorsField> {
        self.policy.credentials.then(|| ("access-control-allow-credentials", "true".to_owned()))
    }
}

fn allow_origin(origin: String) -> CorsField {
    ("access-control-allow-origin", origin)
}

#[cfg(test)]
mod tests {
    use heddle_model::discovery::StringMatch;

    use super::*;
    use crate::route::testing::Asked;

    fn policy() -> CorsPolicy {
        CorsPolicy {
            origins: vec![
                StringMatch::Exact("https://a.example".into()),
                StringMatch::Regex(r"https://[a-z]+\.b\.example".into()),
            ],
            methods: "GET,POST".into(),
            headers: "x-a".into(),
            expose: "x-b".into(),
            max_age: Some(86_400),
            credentials: true,
            keeps_unmatched: false,
        }
    }

    fn verdict(policy: &CorsPolicy, asked: &Asked) -> CorsVerdict {
        Cors::build(policy).unwrap().verdict(asked)
    }

    fn preflight(origin: &str) -> Asked {
        let asked = Asked::of("OPTIONS", "/").with("origin", origin);
        asked
            .with("access-control-request-method", "PUT")
            .with("access-control-request-headers", "x-z")
    }

    const ORIGIN: &str = "access-control-allow-origin";
    const CREDENTIALS: (&str, &str) = ("access-control-allow-credentials", "true");

    fn fields(all: &[(&'static str, &str)]) -> Vec<CorsField> {
        all.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_answered_here() {
        let all = fields(&[
            (ORIGIN, "https://x.b.example"),
            CREDENTIALS,
            ("access-control-allow-methods", "GET,POST"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-max-age", "86400"),
        ]);
        let asked = preflight("https://x.b.example");
        assert_eq!(verdict(&policy(), &asked), CorsVerdict::Preflight(all));
        let open = CorsPolicy { methods: "*".into(), headers: "*".into(), ..policy() };
        let CorsVerdict::Preflight(open) = verdict(&open, &asked) else { panic!("passed on") };
        assert_eq!(
            open[2..4],
            fields(&[
                ("access-control-allow-methods", "PUT"),
                ("access-control-allow-headers", "x-z"),
            ])
        );
    }

    #[test]
    fn a_preflight_of_another_origin_is_passed_on_unless_it_is_to_be_kept() {
        let asked = preflight("https://evil.example");
        assert_eq!(verdict(&policy(), &asked), CorsVerdict::None);
        let keeps = CorsPolicy { keeps_unmatched: true, ..policy() };
        let CorsVerdict::Preflight(answer) = verdict(&keeps, &asked) else { panic!("passed on") };
        assert!(answer.iter().all(|(name, _)| *name != ORIGIN), "{answer:?}");
    }

    #[test]
    fn an_answer_to_an_allowed_origin_says_so_and_to_another_nothing() {
        let leave = fields(&[
            (ORIGIN, "https://a.example"),
            CREDENTIALS,
            ("access-control-expose-headers", "x-b"),
        ]);
        let from = |origin: &str| Asked::get("/").with("origin", origin);
        let allowed = verdict(&policy(), &from("https://a.example"));
        assert_eq!(allowed, CorsVerdict::Leave(leave.clone()));
        assert_eq!(verdict(&policy(), &from("https://b.example")), CorsVerdict::None);
        assert_eq!(verdict(&policy(), &Asked::get("/")), CorsVerdict::None);
        let plain = Asked::of("OPTIONS", "/").with("origin", "https://a.example");
        assert_eq!(verdict(&policy(), &plain), CorsVerdict::Leave(leave), "no preflight");
    }

    #[test]
    fn a_star_is_every_origin() {
        let any = CorsPolicy { origins: vec![StringMatch::Exact("*".into())], ..policy() };
        let asked = Asked::get("/").with("origin", "null");
        let CorsVerdict::Leave(fields) = verdict(&any, &asked) else { panic!("not allowed") };
        assert_eq!(fields[0], (ORIGIN, "null".to_owned()));
    }
}
