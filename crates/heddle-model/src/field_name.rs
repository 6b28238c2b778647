//! Names of header fields as rules may use them. Not the fields of a message: those are `heddle-wire`'s.

/// Is this a field's name in lower case?
#[must_use]
pub fn is_lower_case_token(name: &str) -> bool {
    is_token(name.as_bytes()) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Is this a token (RFC 9110), as names of fields and cookies are?
#[must_use]
pub fn is_token(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !name.is_empty() && name.iter().all(plain)
}

/// May this stand as Host: no blank and nothing that would end it?
#[must_use]
pub fn is_authority(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\,".contains(&byte);
    !text.is_empty() && text.bytes().all(fine)
}

/// Does a message end by this field, or belong it to one connection, or say whom the message is for? No
/// rule changes these: a message would be read in two ways. (The authority of requests has its own
/// place.) Compared without case.
#[must_use]
pub fn delimits_messages(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "host",
    ];
    NAMES.iter().any(|one| one.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_delimit_a_message_are_told_whatever_their_case() {
        assert!(delimits_messages("Content-Length") && delimits_messages("te"));
        assert!(!delimits_messages("x-te") && !delimits_messages("content-type"));
        assert!(is_lower_case_token("x-a_1") && !is_lower_case_token("X-A"));
        assert!(!is_lower_case_token(":path") && !is_lower_case_token(""));
    }
}
