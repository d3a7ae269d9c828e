//! IP addresses and blocks in fields.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::Errors;
use super::path::Path;

/// An IP address of either family, without leading zeros and not IPv4-mapped.
pub(super) fn ip(path: &Path, value: &str, errors: &mut Errors) -> Option<IpAddr> {
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            errors.invalid(path, value, "must not be an IPv4-mapped IPv6 address");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let detail = if has_leading_zeros(value) {
                "must not have leading 0s"
            } else {
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            };
            errors.invalid(path, value, detail);
            None
        }
    }
}

/// Four decimal numbers, as an IPv4 address has, but for zeros in front.
fn has_leading_zeros(value: &str) -> bool {
    let parts: Vec<&str> = value.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

/// The same, in the one form that RFC 5952 recommends.
pub(super) fn canonical_ip(path: &Path, value: &str, errors: &mut Errors) -> Option<IpAddr> {
    let address = ip(path, value, errors)?;
    if address.to_string() != value {
        let detail = format!("must be in canonical form (\"{address}\")");
        errors.invalid(path, value, &detail);
        return None;
    }
    Some(address)
}

/// An address that packets of services can go to.
pub(super) fn not_special(path: &Path, address: IpAddr, errors: &mut Errors) {
    let shown = address.to_string();
    if address.is_unspecified() {
        let detail = format!("may not be unspecified ({shown})");
        errors.invalid(path, shown.as_str(), &detail);
    }
    if address.is_loopback() {
        errors.invalid(
            path,
            shown.as_str(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    if link_local {
        errors.invalid(
            path,
            shown.as_str(),
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
    if link_local_multicast {
        errors.invalid(
            path,
            shown.as_str(),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

/// An address block; host bits beyond the prefix are an error.
pub(super) fn block(path: &Path, value: &str, errors: &mut Errors) -> Option<IpNet> {
    let Ok(block) = value.parse::<IpNet>() else {
        errors.invalid(
            path,
            value,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        );
        return None;
    };
    if block.trunc() != block {
        errors.invalid(
            path,
            value,
            "must not have bits set beyond the prefix length",
        );
        return None;
    }
    if let IpNet::V6(v6) = block
        && v6.addr().to_ipv4_mapped().is_some()
    {
        errors.invalid(path, value, "must not have an IPv4-mapped IPv6 address");
        return None;
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong<T>(check: impl Fn(&Path, &mut Errors) -> T) -> Vec<String> {
        let mut errors = Errors::default();
        check(&Path::root("f"), &mut errors);
        let causes = errors.into_causes();
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses() {
        for right in ["10.0.0.1", "0.0.0.0", "::1", "2001:db8::1"] {
            assert!(
                wrong(|p, e| canonical_ip(p, right, e)).is_empty(),
                "{right}"
            );
        }
        for (value, detail) in [
            (
                "",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "10.0.0.256",
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            ("010.0.0.1", "must not have leading 0s"),
            ("::ffff:10.0.0.1", "must not be an IPv4-mapped IPv6 address"),
            ("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")"),
        ] {
            let expected = format!("f: Invalid value: \"{value}\": {detail}");
            assert_eq!(wrong(|p, e| canonical_ip(p, value, e)), [expected]);
        }
    }

    #[test]
    fn special_addresses() {
        for special in [
            "0.0.0.0",
            "::",
            "127.0.0.1",
            "::1",
            "169.254.1.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
        ] {
            let address = special.parse().unwrap();
            assert_eq!(
                wrong(|p, e| not_special(p, address, e)).len(),
                1,
                "{special}"
            );
        }
        for usual in ["10.0.0.1", "2001:db8::1", "239.1.1.1"] {
            let address = usual.parse().unwrap();
            assert!(
                wrong(|p, e| not_special(p, address, e)).is_empty(),
                "{usual}"
            );
        }
    }

    #[test]
    fn blocks() {
        for right in ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0"] {
            assert!(wrong(|p, e| block(p, right, e)).is_empty(), "{right}");
        }
        for value in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::ffff:10.0.0.0/104",
            "x/8",
        ] {
            assert_eq!(wrong(|p, e| block(p, value, e)).len(), 1, "{value}");
        }
    }
}
