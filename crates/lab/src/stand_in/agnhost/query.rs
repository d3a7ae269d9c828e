//! Query strings (`application/x-www-form-urlencoded`).

/// The first value of `name`, decoded.
pub(super) fn get(query: Option<&str>, name: &str) -> Option<String> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

/// `%41` to `A`, `+` to a space; what is not well-formed stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded() {
        let query = Some("cmd=echo+a%20b%2Bc&x=%zz&flag");
        assert_eq!(get(query, "cmd").as_deref(), Some("echo a b+c"));
        assert_eq!(get(query, "x").as_deref(), Some("%zz"));
        assert_eq!(get(query, "flag").as_deref(), Some(""));
        assert_eq!(get(query, "none"), None);
        assert_eq!(get(None, "cmd"), None);
    }
}
