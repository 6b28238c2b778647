//! What the matchers ask of a request.

use std::borrow::Cow;

/// A request as the matchers see it. Bytes that are not UTF-8 are given lossily.
pub trait RequestView {
    /// Method as sent; case matters.
    fn method(&self) -> &str;
    /// Path and query as sent, in origin form.
    fn target(&self) -> &str;
    /// The target's path as sent, without query and fragment.
    fn path(&self) -> &[u8];
    /// Host, or `:authority`, or the authority of an absolute target; port included if sent.
    fn authority(&self) -> &str;
    /// `http` or `https`.
    fn scheme(&self) -> &str;
    /// A header by lower-case name; several of one name joined by `,`. `None` if absent.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
}
