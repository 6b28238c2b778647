//! Percent-encoding undone (RFC 3986, section 2.1), as it is in paths, queries and posted forms.

/// A text without its percent-encoding; `None` where that is malformed or what comes out is no UTF-8.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// The same of a name or value of a query or form, where `+` is a space.
#[must_use]
pub fn decode_form(text: &str) -> Option<String> {
    decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_or_no_utf_8_is_none_and_plus_is_a_space_in_forms_only() {
        assert_eq!(decode("a%2Fb+%C3%A9").as_deref(), Some("a/b+é"));
        assert_eq!(decode_form("a+b%2Bc").as_deref(), Some("a b+c"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!((decode(wrong), decode_form(wrong)), (None, None), "{wrong}");
        }
    }
}
