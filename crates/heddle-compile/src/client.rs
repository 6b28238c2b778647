//! The calling side of a rule: who sees it, and which clients see the same.

use std::collections::{BTreeMap, BTreeSet};

use heddle_model::{Workload, discovery::WorkloadInfo, registry::carries};

/// What rules can tell clients apart by.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// Namespace of the calling workload.
    pub namespace: &'a str,
    /// Its labels; `None` stands for any client of the namespace: every condition on labels is
    /// taken as met.
    pub labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Client<'a> {
    /// Any client of a namespace, for checks that concern no single workload.
    #[must_use]
    pub fn any_of(namespace: &'a str) -> Self {
        Self { namespace, labels: None }
    }

    /// Does it carry all of these labels?
    pub(crate) fn carries(&self, wanted: &BTreeMap<String, String>) -> bool {
        self.labels.is_none_or(|labels| carries(labels, wanted))
    }

    /// Do `sourceLabels` and `sourceNamespace` of a match hold for it?
    pub(crate) fn is(&self, labels: &BTreeMap<String, String>, namespace: Option<&str>) -> bool {
        namespace.is_none_or(|namespace| namespace == self.namespace) && self.carries(labels)
    }

    /// Does it see a resource of `namespace` with this `exportTo`?
    pub(crate) fn sees(&self, namespace: &str, export_to: &[String]) -> bool {
        export_to.is_empty()
            || export_to.iter().any(|to| match to.as_str() {
                "*" => true,
                "." => namespace == self.namespace,
                other => other == self.namespace,
            })
    }
}

/// How closely a rule is meant for a client that sees it; the first goes before the next, as in
/// Istio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Export {
    /// To its own namespace, which is the client's.
    Private,
    /// To the client's namespace by name.
    Named,
    /// To all.
    Public,
}

impl Export {
    /// Of a resource of `namespace` with this `exportTo`, for a client that sees it.
    pub(crate) fn to(client: Client<'_>, namespace: &str, export_to: &[String]) -> Self {
        if export_to.is_empty() || export_to.iter().any(|to| to == "*") {
            Self::Public
        } else if namespace == client.namespace {
            Self::Private
        } else {
            Self::Named
        }
    }
}

impl<'a> From<&'a Workload> for Client<'a> {
    fn from(workload: &'a Workload) -> Self {
        Self { namespace: &workload.namespace, labels: Some(&workload.labels) }
    }
}

impl<'a> From<&'a WorkloadInfo> for Client<'a> {
    fn from(workload: &'a WorkloadInfo) -> Self {
        Self { namespace: &workload.namespace, labels: Some(&workload.labels) }
    }
}

/// Clients with equal views, of one [`crate::RuleIndex`], are told the same of every service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View {
    namespace: String,
    /// Positions of the label conditions that hold.
    met: BTreeSet<usize>,
}

impl View {
    /// `conditions` are all label conditions of all rules, in a fixed order.
    pub(crate) fn of(client: Client<'_>, conditions: &BTreeSet<BTreeMap<String, String>>) -> Self {
        let met = conditions.iter().enumerate();
        Self {
            namespace: client.namespace.to_owned(),
            met: met.filter(|(_, labels)| client.carries(labels)).map(|(i, _)| i).collect(),
        }
    }
}
