//! Which IP families a Service has (`initIPFamilyFields`).

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::Cause;

pub(super) fn is_headless(spec: &Value) -> bool {
    spec["clusterIP"] == "None" || spec["clusterIPs"][0] == "None"
}

fn name(ipv4: bool) -> &'static str {
    if ipv4 { "IPv4" } else { "IPv6" }
}

/// Sets `ipFamilies` and `ipFamilyPolicy`; returns the families, true for IPv4.
/// `cluster` is the cluster's families, each once.
pub(super) fn decide(spec: &mut Value, cluster: &[bool]) -> Result<Vec<bool>, Cause> {
    let mut families: Vec<bool> = list(&spec["ipFamilies"]).map(|it| it == "IPv4").collect();
    let addresses: Vec<IpAddr> = list(&spec["clusterIPs"])
        .filter_map(|it| it.parse().ok())
        .collect();
    let policy = spec["ipFamilyPolicy"].as_str().unwrap_or_default();
    let open_headless = is_headless(spec)
        && spec["selector"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);

    let given = families.len().max(addresses.len());
    if given > 1 && policy.is_empty() {
        return Err(Cause::invalid(
            "spec.ipFamilyPolicy",
            Value::Null,
            "must be RequireDualStack or PreferDualStack when multiple ipFamilies or clusterIPs \
             are specified",
        ));
    }
    // Somebody else writes the endpoints of a headless service without a
    // selector, and may write both families, whatever this cluster has.
    let policy = match policy {
        "" if open_headless => "RequireDualStack",
        "" => "SingleStack",
        other => other,
    };
    for (index, family) in families.iter().enumerate() {
        if !cluster.contains(family) && !open_headless {
            let field = format!("spec.ipFamilies[{index}]");
            return Err(Cause::invalid(
                field,
                name(*family),
                "not configured on this cluster",
            ));
        }
    }
    for address in addresses.iter().skip(families.len()) {
        if !cluster.contains(&address.is_ipv4()) {
            let detail = format!(
                "{} is not configured on this cluster",
                name(address.is_ipv4())
            );
            return Err(Cause::invalid(
                "spec.clusterIPs",
                spec["clusterIPs"].clone(),
                &detail,
            ));
        }
        families.push(address.is_ipv4());
    }
    if families.is_empty() {
        families.extend(cluster.first());
    }
    if policy == "RequireDualStack" && cluster.len() < 2 && !open_headless {
        let detail = "this cluster is not configured for dual-stack services";
        return Err(Cause::invalid("spec.ipFamilyPolicy", policy, detail));
    }
    if policy == "SingleStack" {
        // The second family is released.
        families.truncate(1);
    } else if let [only] = families[..]
        && (cluster.len() > 1 || open_headless)
    {
        families.push(!only);
    }
    let policy = policy.to_owned();
    spec["ipFamilyPolicy"] = json!(policy);
    spec["ipFamilies"] = families.iter().map(|family| name(*family)).collect();
    Ok(families)
}

fn list(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}
