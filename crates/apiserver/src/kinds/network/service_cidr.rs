//! ServiceCIDRs: ranges that ClusterIPs come from, beside those that the cluster
//! was made with.

use ipnet::IpNet;
use serde_json::Value;

use super::super::address;
use super::super::error::Errors;
use super::super::get::texts;
use super::super::metadata::IMMUTABLE;
use super::super::path::Path;
use super::super::rules::{Builtin, PLAIN};

pub(in crate::kinds) static RULES: Builtin = Builtin {
    validate,
    validate_update,
    ..PLAIN
};

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec").child("cidrs");
    let cidrs = texts(&object["spec"], "cidrs");
    let given = || object["spec"]["cidrs"].clone();
    if cidrs.is_empty() {
        return errors.required(&path, "at least one CIDR required");
    }
    let blocks: Vec<IpNet> = cidrs
        .iter()
        .enumerate()
        .filter_map(|(index, cidr)| address::block(&path.index(index), cidr, errors))
        .collect();
    if cidrs.len() > 2 {
        return errors.invalid(&path, given(), "may only hold up to 2 values");
    }
    if let [first, second] = blocks[..]
        && first.addr().is_ipv4() == second.addr().is_ipv4()
    {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid(&path, given(), detail);
    }
}

/// A second family may be added; otherwise ranges stay what they are.
fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let (now, was) = (texts(&new["spec"], "cidrs"), texts(&old["spec"], "cidrs"));
    let upgraded = was.len() == 1 && now.len() == 2 && now[0] == was[0];
    if now != was && !upgraded {
        let path = Path::root("spec").child("cidrs");
        errors.invalid(&path, new["spec"]["cidrs"].clone(), IMMUTABLE);
    }
}
