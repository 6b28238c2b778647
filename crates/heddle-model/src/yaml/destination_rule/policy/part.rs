//! Values of a policy's fields, read from what was checked.

use std::time::Duration;

use crate::yaml::{node::Node, value};

/// Is it there and true?
pub(super) fn is_true(node: &Node, key: &str) -> bool {
    node.text_of(key).eq_ignore_ascii_case("true")
}

/// A number with a fraction.
pub(super) fn decimal_of(node: &Node, key: &str) -> Option<f64> {
    node.get(key)?.text().parse().ok()
}

/// A whole number.
pub(super) fn number_of(node: &Node, key: &str) -> Option<u32> {
    node.get(key)?.text().parse().ok()
}

/// A duration.
pub(super) fn duration_of(node: &Node, key: &str) -> Option<Duration> {
    value::duration(node.get(key)?.text()).ok()
}
