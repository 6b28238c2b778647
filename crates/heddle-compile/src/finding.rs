//! What is worth saying about rules in force: their nouns.

use heddle_model::{ResourceKey, resource::Resource};

/// One thing worth saying about a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Which resource.
    pub key: ResourceKey,
    /// Its file.
    pub file: String,
    /// 1-based line in that file.
    pub line: usize,
    /// Field path.
    pub field: String,
    /// What sort of thing.
    pub kind: FindingKind,
    /// In words, with what to do.
    pub text: String,
}

impl Finding {
    /// Are calls refused for it? A rule whose own host is absent waits for it, and refuses nobody.
    #[must_use]
    pub fn refuses_calls(&self) -> bool {
        self.kind == FindingKind::Dangling && !self.field.starts_with("spec.host")
    }
}

/// What sort of thing a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// It names something absent; that share of traffic is refused by name.
    Dangling,
    /// An older resource says something about the same and wins.
    Conflict,
    /// A part of it never takes effect as things are.
    NoEffect,
    /// It is accepted and refused at run time, because Heddle does not carry it out yet.
    NotEnforced,
    /// It does what it says, which may not be what was meant.
    Notice,
}

/// A resource's state, the gravest thing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceState {
    /// In force as written.
    Programmed,
    /// In force, but for fields that this version does not enforce.
    Partial,
    /// Kept without effect: this version does not serve its kind.
    NotEnforced,
    /// In force; a part is refused because it names something absent.
    Dangling,
    /// An older resource wins, at least partly.
    Conflicted,
}

impl ResourceState {
    /// The word shown to users.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Programmed => "Programmed",
            Self::Partial => "Partial",
            Self::NotEnforced => "NotEnforced",
            Self::Dangling => "Dangling",
            Self::Conflicted => "Conflicted",
        }
    }

    /// The state of a resource that `findings` are about.
    #[must_use]
    pub fn of<'a>(resource: &Resource, findings: impl IntoIterator<Item = &'a Finding>) -> Self {
        let own = match () {
            () if resource.is_not_served() => Self::NotEnforced,
            () if resource.is_partial() => Self::Partial,
            () => Self::Programmed,
        };
        let state = |finding: &Finding| match finding.kind {
            FindingKind::Conflict => Self::Conflicted,
            FindingKind::Dangling => Self::Dangling,
            FindingKind::NotEnforced => Self::Partial,
            FindingKind::NoEffect | FindingKind::Notice => Self::Programmed,
        };
        findings.into_iter().map(state).max().unwrap_or(own).max(own)
    }
}

impl Finding {
    pub(crate) fn new(
        resource: &Resource,
        place: (usize, String),
        kind: FindingKind,
        text: String,
    ) -> Self {
        let (line, field) = place;
        Self {
            key: resource.key.clone(),
            file: resource.origin.file.clone(),
            line,
            field,
            kind,
            text,
        }
    }
}
