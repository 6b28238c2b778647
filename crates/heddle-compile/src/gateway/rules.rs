//! A rule of a route as a port's rules: the same nouns that a VirtualService becomes. What differs in the
//! dialect is settled here: prefixes by element, 500 for what is absent, the port of a redirect.

use std::collections::BTreeMap;

use heddle_model::{
    Registry, ServicePort,
    discovery::{
        Answer, HeaderOperations, HeaderRules, HttpMatch, HttpRule, Mirror, MirrorCompare,
        PathRewrite, Provenance, Redirect, RedirectPath, RegexRewrite, Rewrite, RuleAction,
        SniRule, Target, Traffic, WeightedTarget,
    },
    resource::{MeshRedirect, MeshRule, PathModifier, Resource, RouteKind},
};

use super::{
    Attached, PortRules,
    precedence::{Rank, Taken, conditions},
    target,
};
use crate::{
    carries::{asks_nothing, provenance, takes_http},
    rules::RouteSource,
    traffic::{for_older_sidecars, implied_port, lift_authority, names_methods, said_unsafe},
};

/// What the Gateway API answers where a rule leads to nothing.
const ABSENT: u16 = 500;
/// Any path, for a rewrite that looks at none of it.
const ANY_PATH: &str = "^.*$";

/// One match of one rule.
struct Entry<'a> {
    rank: Rank,
    source: RouteSource<'a>,
    rule: &'a MeshRule,
    position: usize,
    conditions: Vec<(HttpMatch, Taken)>,
}

impl Attached<'_> {
    /// What a port is told.
    pub(crate) fn rules(&self, registry: &Registry, port: &ServicePort) -> PortRules {
        match self.kind {
            RouteKind::Grpc | RouteKind::Http => {
                PortRules { http: self.http(registry, port), ..PortRules::default() }
            }
            RouteKind::Tls => PortRules { sni: self.sni(registry), ..PortRules::default() },
            RouteKind::Tcp => self.tcp(registry, port),
        }
    }

    /// Connections of TLS go where the route with the closest name says, of equals the oldest; who asks for a
    /// name that no route has is refused, as a request is that meets no rule of an HTTPRoute.
    fn sni(&self, registry: &Registry) -> Vec<SniRule> {
        let rules = self.routes.iter().filter_map(|one| Some((one, one.route.rules.first()?)));
        let mut all: Vec<SniRule> = rules
            .map(|(source, rule)| SniRule {
                provenance: provenance(source.resource, "rules", 0, &rule.name),
                names: source.route.names.clone(),
                targets: targets(registry, source.resource, rule),
            })
            .collect();
        let first = self.routes.first().filter(|_| !all.iter().any(|rule| rule.names.is_empty()));
        all.extend(first.map(|oldest| SniRule {
            provenance: Provenance(oldest.resource.key.to_string()),
            names: Vec::new(),
            targets: nowhere("no TLSRoute of this port is for the name that the client asks for"),
        }));
        all
    }

    /// Connections go where the oldest route says, and so do requests where the port can have some.
    fn tcp(&self, registry: &Registry, port: &ServicePort) -> PortRules {
        let rules = self.routes.iter().filter_map(|one| Some((one, one.route.rules.first()?)));
        let Some((source, rule)) = rules.into_iter().next() else { return PortRules::default() };
        let tcp = targets(registry, source.resource, rule);
        let http = takes_http(port.protocol).then(|| HttpRule {
            provenance: provenance(source.resource, "rules", 0, &rule.name),
            matches: Vec::new(),
            fault: None,
            action: RuleAction::Forward(tcp.clone()),
            traffic: Traffic { absent_status: Some(ABSENT), ..Traffic::default() },
        });
        PortRules { http: http.into_iter().collect(), tcp, sni: Vec::new() }
    }

    fn http(&self, registry: &Registry, port: &ServicePort) -> Vec<HttpRule> {
        let mut entries = Vec::new();
        for &source in &self.routes {
            for (position, rule) in source.route.rules.iter().enumerate() {
                entries.extend(rule.matches.iter().map(|one| Entry {
                    rank: Rank::of(one),
                    source,
                    rule,
                    position,
                    conditions: conditions(one),
                }));
            }
        }
        // Routes stand by age, and rules in their order: ties stay as they are.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.rank));
        let mut rules: Vec<HttpRule> = Vec::new();
        let mut last: Option<(usize, usize)> = None;
        for entry in entries {
            let whose = (entry.source.position, entry.position);
            let goes_on = last == Some(whose) && !replaces_prefix(entry.rule);
            let is_last = entry.conditions.iter().any(|(one, _)| asks_nothing(one));
            match rules.last_mut().filter(|_| goes_on) {
                Some(rule) => entry.joins(rule, is_last),
                None => rules.extend(entry.rules(registry, port)),
            }
            if is_last {
                break; // Every request is met: no rule after it is ever reached.
            }
            last = Some(whose);
        }
        rules
    }
}

impl Entry<'_> {
    /// Adds its conditions to those of the same rule before it.
    fn joins(self, rule: &mut HttpRule, is_last: bool) {
        match is_last {
            true => rule.matches.clear(),
            false => rule.matches.extend(self.conditions.into_iter().map(|(one, _)| one)),
        }
        if let Some(retries) = &mut rule.traffic.retries {
            retries.any_method = said_unsafe(self.source.resource) || names_methods(&rule.matches);
        }
    }

    /// As rules: one, or where a prefix is replaced one for each way to end it.
    fn rules(&self, registry: &Registry, port: &ServicePort) -> Vec<HttpRule> {
        let whole = |matches: Vec<HttpMatch>, taken: Taken| {
            let matches = match matches.iter().any(asks_nothing) {
                true => Vec::new(),
                false => matches,
            };
            self.http_rule(registry, port, matches, taken)
        };
        if replaces_prefix(self.rule) {
            let all = self.conditions.iter();
            return all.map(|(one, taken)| whole(vec![one.clone()], *taken)).collect();
        }
        let all = self.conditions.iter().map(|(one, _)| one.clone()).collect();
        vec![whole(all, Taken::Whole)]
    }

    fn http_rule(
        &self,
        registry: &Registry,
        port: &ServicePort,
        matches: Vec<HttpMatch>,
        taken: Taken,
    ) -> HttpRule {
        let resource = self.source.resource;
        let traffic = self.traffic(registry, port, &matches, taken);
        let action = match for_older_sidecars(traffic.answer.as_ref()) {
            Some(refusal) => RuleAction::Refuse(refusal),
            None => RuleAction::Forward(targets(registry, resource, self.rule)),
        };
        HttpRule {
            provenance: provenance(resource, "rules", self.position, &self.rule.name),
            matches,
            fault: None,
            action,
            traffic,
        }
    }

    fn traffic(
        &self,
        registry: &Registry,
        port: &ServicePort,
        matches: &[HttpMatch],
        taken: Taken,
    ) -> Traffic {
        let (rule, resource) = (self.rule, self.source.resource);
        let mut traffic = rule.traffic.clone();
        traffic.absent_status = Some(ABSENT);
        if rule.unknown_filter.is_none() {
            let redirect = rule.redirect.as_ref().map(|one| redirect(one, port.number, taken));
            traffic.answer = redirect.map(Answer::Redirect);
        }
        traffic.rewrite = rule.rewrite.as_ref().map(|one| Rewrite {
            path: one.path.as_ref().map(|path| match path {
                PathModifier::Full(path) => PathRewrite::Regex(RegexRewrite {
                    pattern: ANY_PATH.to_owned(),
                    substitution: path.replace('\\', "\\\\"),
                }),
                PathModifier::Prefix(text) => PathRewrite::Prefix(ended(text, taken)),
            }),
            authority: one.hostname.clone(),
        });
        if let Some(retries) = &mut traffic.retries {
            retries.any_method = said_unsafe(resource) || names_methods(matches);
        }
        if rule.backends.iter().any(|backend| backend.headers.is_some()) {
            // They are part of what each target says: see `targets`.
            traffic.headers = None;
        }
        lift_authority(&mut traffic);
        let home = &resource.key.namespace;
        let mirrors = rule.mirrors.iter();
        traffic.mirrors = mirrors
            .map(|one| Mirror {
                to: target(registry, home, &one.to),
                percent: one.percent,
                compare: MirrorCompare::default(),
            })
            .collect();
        traffic
    }
}

/// Does it replace the elements that its condition took?
fn replaces_prefix(rule: &MeshRule) -> bool {
    let of = |path: &Option<PathModifier>| matches!(path, Some(PathModifier::Prefix(_)));
    rule.redirect.as_ref().is_some_and(|one| of(&one.path))
        || rule.rewrite.as_ref().is_some_and(|one| of(&one.path))
}

/// What replaces elements, so that it ends as they did.
fn ended(text: &str, taken: Taken) -> String {
    let bare = text.strip_suffix('/').unwrap_or(text);
    match taken {
        Taken::Whole if bare.is_empty() => "/".to_owned(),
        Taken::Whole => bare.to_owned(),
        Taken::UpToSlash => format!("{bare}/"),
    }
}

/// The port is that of the scheme, where there is one, else the one that was called; one that the scheme
/// implies is not named.
fn redirect(one: &MeshRedirect, called: u16, taken: Taken) -> Redirect {
    let port = one.port.or_else(|| one.scheme.is_none().then_some(called));
    let implied = implied_port(one.scheme.as_deref());
    Redirect {
        path: one.path.as_ref().map(|path| match path {
            PathModifier::Full(path) => RedirectPath::Whole(path.clone()),
            PathModifier::Prefix(text) => RedirectPath::Prefix(ended(text, taken)),
        }),
        authority: one.hostname.clone(),
        port: port.filter(|port| Some(*port) != implied),
        scheme: one.scheme.clone(),
        status: one.status,
        drops_port: true,
    }
}

/// All of it is refused.
fn nowhere(reason: &str) -> Vec<WeightedTarget> {
    vec![WeightedTarget { weight: 1, to: Target::Dangling(reason.to_owned()), headers: None }]
}

/// Where requests or connections go. What has no weight gets nothing; where nothing has any, all of it is
/// refused.
fn targets(registry: &Registry, resource: &Resource, rule: &MeshRule) -> Vec<WeightedTarget> {
    if let Some(filter) = &rule.unknown_filter {
        return nowhere(&format!("{} is not carried out", filter.what));
    }
    let weighted: Vec<_> = rule.backends.iter().filter(|one| one.weight > 0).collect();
    if weighted.is_empty() {
        return nowhere(match rule.backends.is_empty() {
            true => "the rule names no backend",
            false => "no backend of the rule has a weight",
        });
    }
    let own = rule.backends.iter().any(|one| one.headers.is_some());
    let all = weighted.into_iter().map(|one| WeightedTarget {
        weight: one.weight,
        to: target(registry, &resource.key.namespace, one),
        headers: own
            .then(|| behind(rule.traffic.headers.as_ref(), one.headers.as_ref()))
            .flatten()
            .map(Box::new),
    });
    all.collect()
}

/// The changes of a rule and, behind them, those of a backend.
fn behind(rule: Option<&HeaderRules>, backend: Option<&HeaderRules>) -> Option<HeaderRules> {
    let (Some(rule), Some(backend)) = (rule, backend) else { return rule.or(backend).cloned() };
    Some(HeaderRules {
        request: in_turn(&rule.request, &backend.request),
        response: in_turn(&rule.response, &backend.response),
        authority: backend.authority.clone().or_else(|| rule.authority.clone()),
    })
}

/// One set of changes that does what two do in turn.
fn in_turn(first: &HeaderOperations, then: &HeaderOperations) -> HeaderOperations {
    let mut all = first.clone();
    for name in &then.remove {
        all.set.remove(name);
        all.add.remove(name);
        all.remove.push(name.clone());
    }
    for (name, value) in &then.set {
        all.add.remove(name);
        all.set.insert(name.clone(), value.clone());
    }
    let mut add: BTreeMap<String, String> = std::mem::take(&mut all.add);
    for (name, value) in &then.add {
        // Several values of one field in one line (RFC 9110, section 5.3).
        add.entry(name.clone())
            .and_modify(|before| *before = format!("{before}, {value}"))
            .or_insert_with(|| value.clone());
    }
    HeaderOperations { add, ..all }
}
