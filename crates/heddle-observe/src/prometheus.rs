//! Prometheus' HTTP interface over the store, so that Grafana and Kiali can ask here as they ask Prometheus: which
//! metrics there are ([`families`]), their series from what is stored ([`gather`]), and the calls ([`calls`]).
//!
//! Not here: the language of queries ([`crate::promql`]).

mod answer;
mod calls;
mod families;
mod form;
mod gather;

#[cfg(test)]
mod tests;

pub(crate) use answer::refusal;
pub(crate) use calls::{answer, is_call};
