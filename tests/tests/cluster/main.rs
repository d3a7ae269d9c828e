//! What pods of a real cluster can rely on, asked with kubectl alone:
//! `cargo xtask test --cluster`.

mod policy;
mod world;

use std::collections::BTreeSet;

use ripstop_tests::Cluster;
use serde_json::Value;
use world::{Pod, World};

#[test]
fn pods_reach_each_other_under_their_own_addresses() {
    let Some(world) = World::up() else { return };
    for client in world.clients() {
        for server in &world.pods {
            for address in &server.addresses {
                let said = world.must_ask(client, &world::url(address, 8080));
                assert!(said.starts_with(&server.name), "{address} said {said}");
                let own = client.address_like(address);
                assert!(
                    said.contains(own),
                    "{} at {own} asked {address}, which saw {said}",
                    client.name
                );
            }
        }
    }
}

#[test]
fn a_service_leads_to_all_of_its_pods() {
    let Some(world) = World::up() else { return };
    let service = world.cluster.get(&["service", "web"]);
    let node_port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let mut frontends: Vec<String> = strings(&service["spec"]["clusterIPs"])
        .map(|address| world::url(&address, 80))
        .collect();
    let families = strings(&service["spec"]["ipFamilies"]).collect::<Vec<_>>();
    let is_served = |address: &String| {
        let family = if address.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        families.iter().any(|one| one == family)
    };
    frontends.extend(
        world
            .node_addresses()
            .iter()
            .filter(|address| is_served(address))
            .map(|address| world::url(address, u16::try_from(node_port).unwrap())),
    );
    let all: BTreeSet<&str> = world.pods.iter().map(|pod| pod.name.as_str()).collect();
    for client in world.clients() {
        for frontend in &frontends {
            world.cluster.eventually(frontend, || {
                let said = world.ask_often(client, frontend, 12 * all.len());
                let names = said.lines().filter_map(|line| line.split(' ').next());
                let heard: BTreeSet<&str> = names.collect();
                match heard == all {
                    true => Ok(()),
                    false => Err(format!("{} heard {heard:?} of {all:?}", client.name)),
                }
            });
        }
    }
}

#[test]
fn a_service_follows_its_pods() {
    let Some(world) = World::up() else { return };
    let client = &world.asker;
    world.must_ask(client, "http://web/");
    // Nobody answers any more, and a client learns it at once.
    let selector = |app: &str| format!(r#"{{"spec": {{"selector": {{"app": "{app}"}}}}}}"#);
    let patch = |app: &str| {
        let patch = selector(app);
        world
            .cluster
            .kubectl(&["patch", "service", "web", "-p", &patch]);
    };
    patch("nobody");
    world.cluster.eventually("nobody answers", || {
        let said = world.ask(client, "http://web/");
        if said.ok { Err(said.stdout) } else { Ok(()) }
    });
    patch("everywhere");
    world.must_ask(client, "http://web/");
}

#[test]
fn names_are_known_in_every_pod() {
    let Some(world) = World::up() else { return };
    let services = ["web", "headless"].map(|name| world.cluster.get(&["service", name]));
    let cluster_ips: Vec<String> = strings(&services[0]["spec"]["clusterIPs"]).collect();
    let is_served = |address: &&String| {
        let mut families = strings(&services[1]["spec"]["ipFamilies"]);
        families.any(|family| (family == "IPv6") == address.contains(':'))
    };
    let behind: Vec<String> = world
        .pods
        .iter()
        .flat_map(|pod| pod.addresses.iter().filter(is_served).cloned())
        .collect();
    let namespace = world.cluster.namespace();
    for client in world.clients() {
        for (name, wanted) in [
            (format!("web.{namespace}.svc.cluster.local"), &cluster_ips),
            (format!("headless.{namespace}.svc.cluster.local"), &behind),
        ] {
            world.cluster.eventually(&name, || {
                let both = format!("nslookup -type=a {name}.; nslookup -type=aaaa {name}.");
                let said = world.cluster.sh(&client.name, &both).stdout;
                match wanted.iter().find(|address| !said.contains(*address)) {
                    None => Ok(()),
                    Some(address) => Err(format!("no {address} in {said}")),
                }
            });
        }
        // By the search list, as programs ask.
        for name in [
            "web",
            &format!("web.{namespace}"),
            &format!("web.{namespace}.svc"),
        ] {
            world.must_ask(client, &format!("http://{name}/"));
        }
        let unknown = world.ask(client, "http://no-such-service/");
        assert!(!unknown.ok, "{}", unknown.stdout);
    }
}

/// That whoever is tested is this program, and all of it is well.
#[test]
fn the_agent_of_every_node_has_what_the_api_says() {
    let Some(cluster) = Cluster::find() else {
        return;
    };
    let agents = cluster.get(&[
        "pods",
        "-n",
        "kube-system",
        "-l",
        "app.kubernetes.io/name=ripstop",
    ]);
    let nodes = cluster.get(&["nodes"]);
    let agents = agents["items"].as_array().unwrap();
    assert_eq!(
        agents.len(),
        nodes["items"].as_array().unwrap().len(),
        "an agent on each node (deploy/ripstop.yaml)"
    );
    for agent in agents {
        let name = agent["metadata"]["name"].as_str().unwrap();
        cluster.eventually(name, || {
            let words = ["exec", "-n", "kube-system", name, "--", "/ripstop"];
            let said = cluster.try_kubectl(&[&words[..], &["status", "-o", "json"]].concat());
            let status: Value = serde_json::from_str(&said.stdout)
                .map_err(|error| format!("{error}: {}{}", said.stdout, said.stderr))?;
            match status["synced"] == true {
                true => Ok(()),
                false => Err(status.to_string()),
            }
        });
        let verify = [
            "exec",
            "-n",
            "kube-system",
            name,
            "--",
            "/ripstop",
            "status",
            "--verify",
        ];
        cluster.kubectl(&verify);
    }
}

fn strings(list: &Value) -> impl Iterator<Item = String> {
    let list = list.as_array().expect("a list");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    list.iter().map(text).collect::<Vec<_>>().into_iter()
}

impl Pod {
    /// Its address of the other's family.
    fn address_like(&self, other: &str) -> &str {
        let same = |own: &&String| own.contains(':') == other.contains(':');
        self.addresses.iter().find(same).expect("both families")
    }
}
