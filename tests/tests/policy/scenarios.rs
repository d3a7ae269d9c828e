//! What policies promise besides who reaches whom at first: connections that are
//! there, replies, a pod's own traffic, nodes, services, and what is said of it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use ripstop_tests::{eventually, write_manifest};
use serde_json::Value;

use crate::ENGINES;
use crate::probes::{Kind, Reach};
use crate::stage;
use crate::town::{FROM_CLIENT, Town, echoes, ingress};

#[test]
fn what_policies_promise() {
    for engine in ENGINES {
        let town = Town::new(engine, &[]);
        a_change_ends_what_is_no_longer_allowed(&town);
        replies_pass(&town);
        a_pod_reaches_itself(&town);
        the_node_of_a_pod_reaches_it(&town);
        services_are_judged_by_their_pods(&town);
        what_was_stopped_is_said(&town);
        a_policy_is_only_tried(&town);
        kernel_and_plan_agree(&town);
    }
}

/// A connection goes on as long as the rules of now allow it; one that was
/// stopped goes on when they do again, if its ends have waited.
fn a_change_ends_what_is_no_longer_allowed(town: &Town) {
    for server in [&town.near, &town.far] {
        town.no_policy();
        let before = town.connect(&town.client, server);
        assert!(echoes(&before), "{}: without policies", town.engine);
        town.policy(&ingress(FROM_CLIENT));
        assert!(echoes(&before), "{}: it is still allowed", town.engine);
        town.policy(&ingress(
            "{from: [{podSelector: {matchLabels: {app: other}}}]}",
        ));
        assert!(!echoes(&before), "{}: it is no longer allowed", town.engine);
        town.expect(&town.client, server, 80, Reach::Silent);
        town.policy(&ingress(FROM_CLIENT));
        town.expect(&town.client, server, 80, Reach::Open);
        eventually("the connection goes on", || {
            (&before).read_exact(&mut [0; 4]).is_ok().then_some(())
        });
        town.no_policy();
    }
}

/// Who may only be asked answers, and who may only ask is answered.
fn replies_pass(town: &Town) {
    let policy = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: asks}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: answers}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
";
    town.policy(policy);
    for server in [&town.near, &town.far] {
        town.expect(&town.client, server, 80, Reach::Open);
        town.expect(server, &town.client, 80, Reach::Silent);
    }
    town.no_policy();
}

fn a_pod_reaches_itself(town: &Town) {
    town.policy(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
",
    );
    for pod in [&town.near, &town.far] {
        town.expect(pod, pod, 80, Reach::Open);
        town.expect(&town.client, pod, 80, Reach::Silent);
    }
    town.no_policy();
}

/// And nobody else's node does; a pod on a node's own network is that node.
fn the_node_of_a_pod_reaches_it(town: &Town) {
    town.policy(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
",
    );
    town.expect(&town.node1, &town.near, 80, Reach::Open);
    town.expect(&town.near, &town.node1, 80, Reach::Open);
    town.expect(&town.host, &town.far, 80, Reach::Open);
    town.expect(&town.node1, &town.far, 80, Reach::Silent);
    town.expect(&town.host, &town.near, 80, Reach::Silent);
    // No policy selects it: what it says of itself is not restricted.
    town.expect(&town.host, &town.outside, 80, Reach::Open);
    town.no_policy();
    // Its node's address is what others name it by.
    let host = town.host.addresses[0];
    town.policy(&ingress(&format!(
        "{{from: [{{ipBlock: {{cidr: {host}/32}}}}]}}"
    )));
    town.expect(&town.host, &town.near, 80, Reach::Open);
    town.expect(&town.node1, &town.far, 80, Reach::Silent);
    town.no_policy();
}

/// By the pod behind it and its port, and by the client's own address.
fn services_are_judged_by_their_pods(town: &Town) {
    let service = town.lab.get(&["service", "web"]);
    let cluster_ip: IpAddr = stage::text(&service["spec"]["clusterIP"]).parse().unwrap();
    let by_service = SocketAddr::new(cluster_ip, 8000);
    let by_node = SocketAddr::new(town.node1.addresses[0], 30080);
    let outside = town
        .outside
        .addresses
        .iter()
        .find(|one| one.is_ipv4())
        .unwrap();
    for server in ["near", "far"] {
        town.lab.kubectl(&["label", "pod", server, "real=only"]);
        eventually("the service has its endpoint", || {
            let open = town.client.reach(Kind::Tcp, by_service, true) == Reach::Open
                && town.outside.reach(Kind::Tcp, by_node, true) == Reach::Open;
            open.then_some(())
        });
        // The service's own port is nobody's.
        town.policy(&ingress("{ports: [{port: 80}]}"));
        town.expect_tcp(&town.client, by_service, Reach::Open);
        town.policy(&ingress("{ports: [{port: 8000}]}"));
        town.expect_tcp(&town.client, by_service, Reach::Silent);
        // From outside by a node that may be another one.
        town.policy(&ingress(&format!(
            "{{from: [{{ipBlock: {{cidr: {outside}/32}}}}]}}"
        )));
        if server == "near" {
            town.expect_tcp(&town.outside, by_node, Reach::Open);
        }
        town.expect_tcp(&town.client, by_service, Reach::Silent);
        town.policy(&ingress(FROM_CLIENT));
        town.expect_tcp(&town.client, by_service, Reach::Open);
        if server == "near" {
            town.expect_tcp(&town.outside, by_node, Reach::Silent);
        }
        town.lab.kubectl(&["label", "pod", server, "real-"]);
        town.no_policy();
    }
}

/// By pod, direction, other end, port and policy; and counted in the status.
fn what_was_stopped_is_said(town: &Town) {
    town.policy(&ingress("{ports: [{port: 81}]}"));
    town.expect(&town.client, &town.near, 80, Reach::Silent);
    let said = eventually("the drop is counted", || {
        let printed = town.lab.agent("node1", &["policy", "drops", "-o", "json"]);
        let all: Value = serde_json::from_str(&printed.stdout).ok()?;
        let drops = all[0]["drops"].as_array()?.clone();
        drops.into_iter().find(|one| {
            one["pod"] == "default/near"
                && one["direction"] == "ingress"
                && one["other"] == "default/client"
                && one["protocol"] == "TCP"
                && one["port"] == 80
        })
    });
    assert_eq!(
        said["by"], "isolated by default/web, allowed by none",
        "{}: {said}",
        town.engine
    );
    assert!(
        said["packets"].as_u64() > Some(0),
        "{}: {said}",
        town.engine
    );
    // An agent that is busy says less in its status.
    eventually("the status counts it", || {
        let status = town.lab.agent("node1", &["status", "-o", "json"]);
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        let denied = status["policies"]["denied"].as_array()?;
        let is_it = |one: &Value| one["pod"] == "default/near" && one["direction"] == "ingress";
        denied.iter().any(is_it).then_some(())
    });
    let check = [
        "policy", "check", "--from", "client", "--to", "near", "--port",
    ];
    let denied = town.lab.agent("node1", &[&check[..], &["80"]].concat());
    assert!(
        !denied.ok && denied.stdout.starts_with("no: "),
        "{}",
        denied.stdout
    );
    assert!(
        denied.stdout.contains("isolated by default/web"),
        "{}",
        denied.stdout
    );
    let allowed = town.lab.agent("node1", &[&check[..], &["81"]].concat());
    assert!(
        allowed.ok && allowed.stdout.starts_with("yes: "),
        "{}",
        allowed.stdout
    );
    let shown = town
        .lab
        .agent("node1", &["policy", "show", "near", "--rows"]);
    assert!(shown.ok, "{}{}", shown.stdout, shown.stderr);
    assert!(
        shown
            .stdout
            .contains("networkpolicy default/web ingress[0]"),
        "{}",
        shown.stdout
    );
    town.no_policy();
}

/// Given as a file or with the annotation: what it would deny is said, and goes on.
fn a_policy_is_only_tried(town: &Town) {
    let policy = ingress("{from: [{podSelector: {matchLabels: {app: other}}}]}");
    let expected = "default/client to default/near 80/TCP: ingress of default/near: \
                    isolated by default/web, allowed by none";
    let kept = town.connect(&town.client, &town.near);
    let file = write_manifest(&policy);
    let file = file.path().to_str().unwrap();
    let tried = |args: &[&str]| {
        eventually("the connection is said", || {
            // It was there before anybody looked: its next packet is seen.
            assert!(echoes(&kept), "{}: it is only tried", town.engine);
            let words = [&["policy", "dry-run"], args].concat();
            let printed = town.lab.agent("node1", &words);
            assert!(printed.stderr.is_empty(), "{}", printed.stderr);
            (!printed.ok && printed.stdout.contains(expected)).then_some(())
        });
    };
    tried(&["-f", file, "--for", "0"]);
    let annotated = "metadata: {name: web, annotations: {ripstop.io/dry-run: 'true'}}";
    let annotated = policy.replace("metadata: {name: web}", annotated);
    stage::apply(&town.lab, &annotated, (0, 0));
    tried(&[]);
    // Shorter than the time between two looks.
    for _ in 0..20 {
        drop(town.connect(&town.client, &town.near));
    }
    eventually("short connections are counted", || {
        let words = ["policy", "dry-run", "-o", "json"];
        let said: Value = serde_json::from_str(&town.lab.agent("node1", &words).stdout).ok()?;
        let denied = said["denied"].as_array()?;
        let ours = denied.iter().filter(|one| one["from"] == "default/client");
        let most = ours.filter_map(|one| one["connections"].as_u64()).max()?;
        // The one that is kept as well.
        (most >= 21).then_some(())
    });
    // Without the annotation it is enforced.
    town.lab
        .kubectl(&["annotate", "networkpolicy", "web", "ripstop.io/dry-run-"]);
    stage::planned(&town.lab, (1, 0));
    assert!(!echoes(&kept), "{}: it is enforced", town.engine);
    town.no_policy();
}

fn kernel_and_plan_agree(town: &Town) {
    town.policy(&ingress(FROM_CLIENT));
    for node in ["node1", "node2"] {
        let verified = town.lab.agent(node, &["status", "--verify"]);
        assert!(
            verified.ok,
            "{}: {}{}",
            town.engine, verified.stdout, verified.stderr
        );
    }
    town.no_policy();
}

#[test]
fn a_denied_client_is_told_if_it_is_to_be() {
    for engine in ENGINES {
        let town = Town::new(engine, &["--policy-deny", "reject"]);
        town.policy(&ingress("{ports: [{port: 81}]}"));
        for server in [&town.near, &town.far] {
            town.expect(&town.client, server, 80, Reach::Refused);
        }
    }
}

/// Admin before NetworkPolicies before Baseline; Pass goes on to the next.
#[test]
fn cluster_policies_come_first_and_last() {
    for engine in ENGINES {
        let town = Town::new(engine, &[]);
        let lab = &town.lab;
        stage::know_cluster_policies(lab);
        let rules = |tier: &str, rule: &str| {
            format!(
                "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
                 metadata: {{name: {}}}\nspec:\n  tier: {tier}\n  priority: 10\n  subject: \
                 {{pods: {{podSelector: {{matchLabels: {{app: web}}}}}}}}\n  ingress:\n  - {rule}\n---\n",
                tier.to_lowercase()
            )
        };
        let from = |action: &str| {
            format!(
                "{{action: {action}, from: [{{pods: {{namespaceSelector: {{}}, \
                 podSelector: {{matchLabels: {{app: client}}}}}}}}]}}"
            )
        };
        for (admin, network, baseline, expected) in [
            ("Deny", Some(FROM_CLIENT), "Accept", Reach::Silent),
            ("Accept", Some(""), "Deny", Reach::Open),
            ("Pass", Some(FROM_CLIENT), "Deny", Reach::Open),
            ("Pass", None, "Deny", Reach::Silent),
            ("Pass", None, "Accept", Reach::Open),
        ] {
            let network = network.map(ingress);
            let cluster = rules("Admin", &from(admin)) + &rules("Baseline", &from(baseline));
            let yaml = cluster + network.as_deref().unwrap_or_default();
            stage::apply(lab, &yaml, (usize::from(network.is_some()), 2));
            let server = &town.near;
            for kind in [Kind::Tcp, Kind::Udp] {
                let to = SocketAddr::new(server.addresses[0], 80);
                assert_eq!(
                    town.client.reach(kind, to, expected == Reach::Open),
                    expected,
                    "{engine}: Admin {admin}, {network:?}, Baseline {baseline}"
                );
            }
            lab.kubectl(&["delete", "clusternetworkpolicies", "--all"]);
            town.no_policy();
        }
    }
}
