//! Kinds of services that are more than an address with endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{OUTSIDE, OUTSIDE_PORT, at, eventually};
use crate::engine::{Family, Stack};
use crate::path::{BESIDE, CLIENT, FAR, HOME, NEAR, Path};
use crate::place::Place;
use crate::scenario::Scenario;
use crate::stage::{Asker, Endpoint, Stage};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "by-name",
        "A service's name leads pods to its ClusterIP.",
        by_name,
    )
    .also_single_stack(),
    Scenario::new(
        "headless",
        "A headless service's name has the addresses of all ready endpoints.",
        headless,
    )
    .also_single_stack(),
    Scenario::new(
        "headless-by-hand",
        "So has one without selector, from slices written by hand.",
        headless_by_hand,
    ),
    Scenario::new(
        "external-name",
        "An ExternalName service is an alias (CNAME).",
        external_name,
    ),
    Scenario::new(
        "without-selector",
        "A service without selector leads to the endpoints of slices written by hand.",
        without_selector,
    )
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "without-selector-outside",
        "Such an endpoint may be outside of the cluster; it sees the node's address.",
        without_selector_outside,
    ),
    Scenario::new(
        "several-slices",
        "The endpoints of several slices are one set.",
        several_slices,
    ),
    Scenario::new(
        "service-cidrs",
        "Services of a further ServiceCIDR work as those of the first.",
        service_cidrs,
    )
    .on(&[Path::PodToNear, Path::NodeToNear]),
    Scenario::new(
        "ip-families",
        "ipFamilyPolicy and ipFamilies decide which ClusterIPs there are; each answers.",
        ip_families,
    )
    .also_single_stack(),
];

fn by_name(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service_of(&NEAR, &json!({}))?;
    let client = stage.from(&Place::pod(CLIENT))?;
    let expected = BTreeSet::from([service.cluster_ip()?]);
    let full = format!("{}.default.svc.cluster.local", service.name());
    let relative = format!("{}.default", service.name());
    for name in [service.name(), &relative, &full] {
        eventually("its address", || {
            let found = addresses(&client, stage.family, name)?;
            ensure!(
                found == expected,
                "{name}: {found:?} instead of {expected:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// What programs in the place get for a name, by its own resolver's rules.
fn addresses(client: &Asker, family: Family, name: &str) -> Result<BTreeSet<IpAddr>> {
    let database = match family {
        Family::Ipv4 => "ahostsv4",
        Family::Ipv6 => "ahostsv6",
    };
    let printed = client.run(&["getent", database, name])?;
    let first_words = printed.lines().filter_map(|line| line.split(' ').next());
    first_words.map(|word| Ok(word.parse()?)).collect()
}

fn headless(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service_of_all(&json!({"clusterIP": "None"}))?;
    let client = stage.from(&Place::pod(CLIENT))?;
    let expected = [NEAR, BESIDE, FAR].iter();
    let expected: BTreeSet<_> = expected
        .map(|server| stage.address(server.name))
        .collect::<Result<_>>()?;
    eventually("the endpoints' addresses", || {
        let found = addresses(&client, stage.family, service.name())?;
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        Ok(())
    })?;
    for address in expected {
        client.tcp(at(address, NEAR.port))?.answered()?;
    }
    Ok(())
}

fn headless_by_hand(stage: &Stage<'_>) -> Result<()> {
    let spec = json!({"clusterIP": "None", "ports": [{"name": "tcp", "port": 8080}]});
    let service = stage.service("web", &spec)?;
    let address = stage.address(FAR.name)?;
    service.slice(8080, &[Endpoint::ready(address)])?;
    let client = stage.from(&Place::pod(CLIENT))?;
    let expected = BTreeSet::from([address]);
    eventually("the endpoint's address", || {
        let found = addresses(&client, stage.family, service.name())?;
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        Ok(())
    })
}

fn external_name(stage: &Stage<'_>) -> Result<()> {
    // The name that it stands for is another service's: it has an address.
    let target = stage.service_of(&NEAR, &json!({}))?;
    let to = format!("{}.default.svc.cluster.local", target.name());
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": stage.name("alias")},
        "spec": {"type": "ExternalName", "externalName": to},
    });
    stage.create("/api/v1/namespaces/default/services", &service)?;
    let client = stage.from(&Place::pod(CLIENT))?;
    let alias = stage.name("alias");
    let full = format!("{alias}.default.svc.cluster.local");
    eventually("a CNAME record", || {
        let printed = client.run(&["dig", "+short", "+tries=1", "+time=2", &full, "CNAME"])?;
        ensure!(printed.trim() == format!("{to}."), "{printed:?}");
        Ok(())
    })?;
    let expected = BTreeSet::from([target.cluster_ip()?]);
    eventually("the address behind it", || {
        let found = addresses(&client, stage.family, &alias)?;
        ensure!(found == expected, "{found:?} instead of {expected:?}");
        Ok(())
    })
}

/// A service without selector at port 80.
const BY_HAND: &str = r#"{"ports": [
    {"name": "tcp", "port": 80, "protocol": "TCP"},
    {"name": "udp", "port": 80, "protocol": "UDP"}
]}"#;

fn without_selector(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service("web", &serde_json::from_str(BY_HAND)?)?;
    let far = Endpoint::ready(stage.address(FAR.name)?);
    let near = Endpoint::ready(stage.address(NEAR.name)?);
    let slice = service.slice(FAR.port, &[far])?;
    let (client, to) = (stage.client()?, service.cluster()?);
    eventually("TCP", || client.tcp(to)?.answered()?.by(FAR.name)?.from(to))?;
    eventually("UDP", || client.udp(to)?.answered()?.by(FAR.name)?.from(to))?;
    service.set_endpoints(&slice, &[near])?;
    eventually("TCP to the other", || {
        client.tcp(to)?.answered()?.by(NEAR.name)
    })?;
    eventually("UDP to the other", || {
        client.udp(to)?.answered()?.by(NEAR.name)
    })?;
    Ok(())
}

fn without_selector_outside(stage: &Stage<'_>) -> Result<()> {
    // Its server begins with its client.
    stage.from(&Place::Outside)?;
    let service = stage.service("web", &serde_json::from_str(BY_HAND)?)?;
    let address: IpAddr = match stage.family {
        Family::Ipv4 => "172.31.0.2".parse()?,
        Family::Ipv6 => "fd00:31::2".parse()?,
    };
    service.slice(OUTSIDE_PORT, &[Endpoint::ready(address)])?;
    let to = service.cluster()?;
    let node = stage.address(HOME)?;
    for place in [Place::pod(CLIENT), Place::node(HOME)] {
        let client = stage.from(&place)?;
        eventually("TCP", || {
            let answered = client.tcp(to)?.answered()?.by(OUTSIDE)?.from(to)?;
            answered.seen_as(node)
        })
        .with_context(|| place.to_string())?;
        eventually("UDP", || {
            let answered = client.udp(to)?.answered()?.by(OUTSIDE)?.from(to)?;
            answered.seen_as(node)
        })
        .with_context(|| place.to_string())?;
    }
    Ok(())
}

fn several_slices(stage: &Stage<'_>) -> Result<()> {
    let service = stage.service("web", &serde_json::from_str(BY_HAND)?)?;
    let collection = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    for server in [NEAR, BESIDE, FAR] {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", service.name(), server.name),
                "labels": {"kubernetes.io/service-name": service.name()},
            },
            "addressType": stage.family.name(),
            "ports": [{"name": "tcp", "port": server.port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [stage.address(server.name)?.to_string()]}],
        });
        stage.create(collection, &slice)?;
    }
    let (client, to) = (stage.client()?, service.cluster()?);
    for server in [NEAR, BESIDE, FAR] {
        eventually("an answer of each", || {
            client.tcp(to)?.answered()?.by(server.name)
        })?;
    }
    Ok(())
}

fn service_cidrs(stage: &Stage<'_>) -> Result<()> {
    // A range of its own for each cell.
    let number = stage.cluster.external_number();
    let (range, address) = match stage.family {
        Family::Ipv4 => (format!("10.97.{number}.0/24"), format!("10.97.{number}.7")),
        Family::Ipv6 => (
            format!("fd00:97:{number}::/112"),
            format!("fd00:97:{number}::7"),
        ),
    };
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": stage.name("cidr")},
        "spec": {"cidrs": [range]},
    });
    stage.create("/apis/networking.k8s.io/v1/servicecidrs", &object)?;
    let spec = json!({"clusterIP": address, "clusterIPs": [address]});
    let service = eventually("an address of the new range", || {
        stage.service_of(&FAR, &spec)
    })?;
    let (client, to) = (stage.client()?, service.cluster()?);
    eventually("TCP", || client.tcp(to)?.answered()?.by(FAR.name)?.from(to))?;
    eventually("UDP", || client.udp(to)?.answered()?.by(FAR.name)?.from(to))?;
    let nobody = match stage.family {
        Family::Ipv4 => format!("10.97.{number}.99"),
        Family::Ipv6 => format!("fd00:97:{number}::99"),
    };
    let nobody = at(nobody.parse()?, 80);
    client
        .tcp(nobody)?
        .refused()
        .context("an address of it that nobody has")
}

fn ip_families(stage: &Stage<'_>) -> Result<()> {
    let other = match stage.family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    };
    let client = stage.client()?;
    let families = |object: &serde_json::Value| object["spec"]["ipFamilies"].clone();
    let first = stage.family.name();
    match stage.cluster.stack {
        Stack::Dual => {
            for policy in ["PreferDualStack", "RequireDualStack"] {
                let service = stage.service(
                    &policy.to_lowercase(),
                    &json!({
                        "selector": {"who": NEAR.name},
                        "ports": [{"port": 80, "targetPort": NEAR.port}],
                        "ipFamilyPolicy": policy,
                    }),
                )?;
                let both = json!([first, other.name()]);
                ensure!(families(&service.object) == both, "{}", service.object);
                let addresses = service.object["spec"]["clusterIPs"].as_array();
                let addresses = addresses.context("no addresses")?.clone();
                ensure!(addresses.len() == 2, "{addresses:?}");
                for address in addresses {
                    let to = at(address.as_str().unwrap_or_default().parse()?, 80);
                    eventually("an answer", || client.tcp(to)?.answered()?.by(NEAR.name))?;
                }
            }
        }
        Stack::Ipv4 | Stack::Ipv6 => {
            let spec = json!({"ipFamilyPolicy": "PreferDualStack"});
            let service = stage.service_of(&NEAR, &spec)?;
            ensure!(
                families(&service.object) == json!([first]),
                "{}",
                service.object
            );
            let to = service.cluster()?;
            eventually("an answer", || client.tcp(to)?.answered())?;
            let spec = json!({
                "ipFamilyPolicy": "RequireDualStack",
                "ipFamilies": [first, other.name()],
                "ports": [{"port": 80}],
            });
            let refused = stage.service("refused", &spec);
            ensure!(
                refused.is_err(),
                "RequireDualStack in a single-stack cluster"
            );
        }
    }
    Ok(())
}
