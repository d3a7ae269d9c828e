//! Addresses and families of a Service. Allocation fills in what is missing.

use std::net::IpAddr;

use serde_json::Value;

use super::super::address;
use super::super::error::Errors;
use super::super::get::{text, texts};
use super::super::path::Path;

const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

pub(super) fn validate(spec: &Value, path: &Path, errors: &mut Errors) {
    let one = text(spec, "clusterIP");
    let many = texts(spec, "clusterIPs");
    let many_path = path.child("clusterIPs");
    let given = || spec["clusterIPs"].clone();
    if one.is_empty() && !many.is_empty() {
        let detail = "must be empty when `clusterIP` is not specified";
        errors.invalid(&many_path, given(), detail);
    } else if many.first().is_some_and(|first| *first != one) {
        errors.invalid(&many_path, given(), "first value must match `clusterIP`");
    }
    let families = texts(spec, "ipFamilies");
    validate_families(&families, &path.child("ipFamilies"), errors);
    let policy = text(spec, "ipFamilyPolicy");
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        errors.not_supported(&path.child("ipFamilyPolicy"), policy, POLICIES);
    }
    if many == ["None"] {
        return;
    }
    if many.first() == Some(&"None") {
        return errors.invalid(
            &many_path,
            given(),
            "'None' must be the first and only value",
        );
    }
    let before = errors.len();
    let addresses: Vec<IpAddr> = many
        .iter()
        .enumerate()
        .filter_map(|(index, ip)| address::canonical_ip(&many_path.index(index), ip, errors))
        .collect();
    if many.len() > 2 {
        errors.invalid(&many_path, given(), "may only hold up to 2 values");
    }
    if errors.len() > before {
        return;
    }
    if let [first, second] = addresses[..]
        && first.is_ipv4() == second.is_ipv4()
    {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(&many_path, given(), detail);
    }
    for (index, (ip, family)) in addresses.iter().zip(families).enumerate() {
        let is = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if is != family && FAMILIES.contains(&family) {
            let detail =
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&many_path.index(index), ip.to_string(), &detail);
        }
    }
}

fn validate_families(families: &[&str], path: &Path, errors: &mut Errors) {
    for (index, family) in families.iter().enumerate() {
        if !FAMILIES.contains(family) {
            errors.not_supported(&path.index(index), *family, FAMILIES);
        }
        if families[..index].contains(family) {
            errors.duplicate(&path.index(index), *family);
        }
    }
}
