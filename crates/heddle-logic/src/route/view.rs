//! What the matchers ask of a request.

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
    /// Is there a line of this header, by lower-case name, of which the value meets `test`? Each line
    /// is a value of its own.
    fn any_header(&self, name: &str, test: &mut dyn FnMut(&str) -> bool) -> bool;
    /// The first line of this header.
    fn first_header(&self, name: &str) -> Option<String> {
        let mut first = None;
        let mut keep = |value: &str| {
            first = Some(value.to_owned());
            true
        };
        let _found = self.any_header(name, &mut keep);
        first
    }
}
