//! Addresses that an object can mean.

use std::net::IpAddr;

/// An address that a service or an endpoint can have. What is special on every
/// host (RFC 6890) would take packets that are none of the cluster's business:
/// a service at 127.0.0.1 every process's own ones.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<IpAddr, String> {
    // ::ffff:10.0.0.1 is 10.0.0.1, as for everybody else.
    let address = text
        .parse::<IpAddr>()
        .map_err(|_| format!("{text:?} is no IP address"))?
        .to_canonical();
    let what = match address {
        _ if address.is_unspecified() => "the unspecified address",
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast address",
        IpAddr::V4(v4) if v4.is_link_local() => "a link-local address",
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "a link-local address",
        _ => return Ok(address),
    };
    Err(format!(
        "{address} is {what}; it must be one of the cluster"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_refused() {
        for text in ["10.96.0.1", "203.0.113.9", "fd00:96::1", "2001:db8::1"] {
            assert_eq!(parse(text), Ok(text.parse().unwrap()));
        }
        assert_eq!(parse("::ffff:10.0.0.1"), Ok(IpAddr::from([10, 0, 0, 1])));
        let cases = [
            ("0.0.0.0", "0.0.0.0 is the unspecified address"),
            ("127.0.0.1", "127.0.0.1 is a loopback address"),
            ("::1", "::1 is a loopback address"),
            ("::ffff:127.0.0.1", "127.0.0.1 is a loopback address"),
            ("224.0.0.1", "224.0.0.1 is a multicast address"),
            ("ff02::1", "ff02::1 is a multicast address"),
            ("169.254.0.1", "169.254.0.1 is a link-local address"),
            ("fe80::1", "fe80::1 is a link-local address"),
            (
                "255.255.255.255",
                "255.255.255.255 is the broadcast address",
            ),
            ("010.0.0.1", "\"010.0.0.1\" is no IP address"),
        ];
        for (text, problem) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
