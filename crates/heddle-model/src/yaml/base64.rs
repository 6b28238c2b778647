//! Bytes in YAML, as protobuf's JSON form writes them: base64 of either alphabet, padded or not.

/// The bytes that `text` stands for.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits.chars() {
        let value = value_of(digit)
            .ok_or_else(|| format!("`{}` is no digit of base64", digit.escape_debug()))?;
        bits = bits << 6 | value;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    // A last digit that begins no byte, or bits that no byte has, are the mark of a text cut short.
    if held >= 6 || bits != 0 || text.len() - digits.len() > 2 {
        return Err("this is no base64 text: its end is missing".to_owned());
    }
    Ok(bytes)
}

/// For a schema: does it decode?
pub(super) fn check(text: &str) -> Result<(), String> {
    decode(text).map(drop)
}

fn value_of(digit: char) -> Option<u32> {
    Some(match digit {
        'A'..='Z' => digit as u32 - 'A' as u32,
        'a'..='z' => digit as u32 - 'a' as u32 + 26,
        '0'..='9' => digit as u32 - '0' as u32 + 52,
        '+' | '-' => 62,
        '/' | '_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_decode_with_and_without_padding() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("aGk=", b"hi"),
            ("aGk", b"hi"),
            ("AP8_", b"\0\xff\x3f"),
            ("AP8/", b"\0\xff\x3f"),
        ] {
            assert_eq!(decode(text).as_deref(), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["a", "aG k", "aGl", "é", "a==="] {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
