//! Manifests in, answers out: each rule of NetworkPolicy by hand.

use std::path::Path;

use clap::Parser;
use serde_json::Value;

use super::world::World;
use super::{Args, Command, check, matrix, show};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    policy: Args,
}

fn run(args: &[&str], file: &Path) -> anyhow::Result<String> {
    let file = file.to_str().unwrap();
    let filename = ["-f", file];
    let args = ["policy"].iter().chain(args).chain(&filename);
    let (text, _) = match Cli::try_parse_from(args)?.policy.command {
        Command::Check(args) => check::run(&args)?,
        Command::Show(args) => show::run(&args)?,
        Command::Drops(_) | Command::DryRun(_) => unreachable!("no manifests are asked"),
        Command::Matrix(args) => matrix::run(&World::read(&args.input)?, &args)?,
    };
    Ok(text)
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// Pods `web` and `db` in `shop` (team a), `probe` in `ops` (team b); `web` and
/// `agent` exist in both, and `agent` of `ops` is on its node's network.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ops, labels: {team: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  containers:
  - {name: c, image: i, ports: [{name: http, containerPort: 9090}, {name: dns, containerPort: 53, protocol: UDP}]}
status: {podIPs: [{ip: 10.1.0.2}, {ip: 'fd00::2'}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: ops, labels: {app: web}}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.2.0.1}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: ops, labels: {app: agent}}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 172.16.0.1}], phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: shop, labels: {app: job}}
spec: {containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 10.2.0.9}], phase: Succeeded}
";

/// `spec` of policy `shop/p`, and what it makes of connections `FROM TO PORT`.
fn expect(spec: &str, cases: &[(&str, bool, &str)]) {
    let policy = format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: p, namespace: shop}}\nspec: {spec}\n"
    );
    expect_all(&policy, cases);
}

fn expect_all(policies: &str, cases: &[(&str, bool, &str)]) {
    let file = written(&format!("{PODS}{policies}"));
    for (connection, allowed, by) in cases {
        let [from, to, port] = connection.split(' ').collect::<Vec<_>>()[..] else {
            panic!("FROM TO PORT, not {connection}");
        };
        let args = [
            "check", "--from", from, "--to", to, "--port", port, "-o", "json",
        ];
        let answer: Value = serde_json::from_str(&run(&args, file.path()).unwrap()).unwrap();
        assert_eq!(
            answer["allowed"], *allowed,
            "{connection}: {answer:#} with {policies}"
        );
        let said = [&answer["egress"]["by"], &answer["ingress"]["by"]];
        assert!(
            by.is_empty() || said.iter().any(|said| said.as_str() == Some(by)),
            "{connection}: {by:?} expected, {answer:#}"
        );
    }
}

const ISOLATED: &str = "isolated by shop/p, allowed by none";

#[test]
fn without_a_policy_everything_passes() {
    expect_all(
        "",
        &[("shop/web shop/db 80", true, "no policy is about it")],
    );
}

#[test]
fn an_empty_selector_selects_the_namespace_and_no_rule_allows_nothing() {
    expect(
        "{podSelector: {}}",
        &[
            ("ops/web shop/web 80", false, ISOLATED),
            ("shop/web shop/db 80", false, ISOLATED),
            ("192.0.2.7 shop/db 80", false, ISOLATED),
            // policyTypes: only ingress.
            ("shop/web ops/web 80", true, "no policy is about it"),
        ],
    );
}

#[test]
fn types_are_defaulted_by_the_rules() {
    let (inside, outside) = ("ops/web shop/web 80", "shop/web ops/web 80");
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", false, true),
        ("{podSelector: {}, egress: []}", false, true),
        (
            "{podSelector: {}, egress: [{ports: [{port: 1}]}]}",
            false,
            false,
        ),
        ("{podSelector: {}, policyTypes: [Egress]}", true, false),
        (
            "{podSelector: {}, policyTypes: [Ingress, Egress]}",
            false,
            false,
        ),
        (
            "{podSelector: {}, policyTypes: [Ingress], egress: [{ports: [{port: 1}]}]}",
            false,
            true,
        ),
    ] {
        expect(spec, &[(inside, ingress, ""), (outside, egress, "")]);
    }
}

#[test]
fn an_empty_rule_allows_everything_and_an_empty_list_everybody() {
    for spec in [
        "{podSelector: {}, ingress: [{}]}",
        "{podSelector: {}, ingress: [{from: [], ports: []}]}",
    ] {
        let by = "networkpolicy shop/p ingress[0]";
        expect(
            spec,
            &[
                ("ops/web shop/db 80/SCTP", true, by),
                ("192.0.2.7 shop/db 1", true, by),
            ],
        );
    }
    expect(
        "{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}",
        &[
            ("192.0.2.7 shop/db 80", true, ""),
            ("192.0.2.7 shop/db 81", false, ISOLATED),
        ],
    );
}

#[test]
fn selectors_of_pods_and_of_namespaces() {
    let of = |from: &str| format!("{{podSelector: {{}}, ingress: [{{from: {from}}}]}}");
    expect(
        &of("[{podSelector: {matchLabels: {app: web}}}]"),
        &[
            ("shop/web shop/db 80", true, ""),
            ("ops/web shop/db 80", false, ISOLATED),
        ],
    );
    expect(
        &of("[{podSelector: {}}]"),
        &[
            ("shop/web shop/db 80", true, ""),
            ("ops/web shop/db 80", false, ISOLATED),
        ],
    );
    expect(
        &of("[{namespaceSelector: {matchLabels: {team: b}}}]"),
        &[
            ("shop/web shop/db 80", false, ISOLATED),
            ("ops/web shop/db 80", true, ""),
        ],
    );
    expect(
        &of("[{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]"),
        &[
            ("shop/web shop/db 80", false, ISOLATED),
            ("ops/web shop/db 80", true, ""),
        ],
    );
    // Both in one entry: pods of such namespaces. In two: either.
    expect(
        &of("[{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]"),
        &[
            ("shop/db shop/web 80", true, ""),
            ("ops/web shop/web 80", false, ISOLATED),
        ],
    );
    expect(
        &of(
            "[{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: db}}}]",
        ),
        &[
            ("shop/db shop/web 80", true, ""),
            ("ops/web shop/web 80", true, ""),
        ],
    );
    // Selectors mean pods alone.
    expect(
        &of("[{namespaceSelector: {}}]"),
        &[("192.0.2.7 shop/web 80", false, ISOLATED)],
    );
}

#[test]
fn blocks_match_every_address_but_the_exceptions() {
    expect(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}}]}]}",
        &[
            ("10.9.9.9 shop/web 80", true, ""),
            ("shop/db shop/web 80", true, ""),
            ("ops/web shop/web 80", false, ISOLATED),
            ("11.0.0.1 shop/web 80", false, ISOLATED),
            ("fd00::9 shop/web 80", false, ISOLATED),
        ],
    );
    expect(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 'fd00::/8'}}]}]}",
        &[
            ("shop/web fd00::9 80", true, ""),
            ("shop/web 10.9.9.9 80", false, ISOLATED),
        ],
    );
}

#[test]
fn ports_by_number_range_protocol_and_name() {
    let of = |ports: &str| format!("{{podSelector: {{}}, ingress: [{{ports: {ports}}}]}}");
    expect(
        &of("[{port: 80}]"),
        &[
            ("ops/web shop/db 80", true, ""),
            ("ops/web shop/db 80/UDP", false, ISOLATED),
        ],
    );
    expect(
        &of("[{port: 80, endPort: 90, protocol: SCTP}]"),
        &[
            ("ops/web shop/db 79/SCTP", false, ""),
            ("ops/web shop/db 80/SCTP", true, ""),
            ("ops/web shop/db 90/SCTP", true, ""),
            ("ops/web shop/db 91/SCTP", false, ""),
            ("ops/web shop/db 85/TCP", false, ""),
        ],
    );
    expect(
        &of("[{protocol: UDP}]"),
        &[
            ("ops/web shop/db 1/UDP", true, ""),
            ("ops/web shop/db 1/TCP", false, ""),
        ],
    );
    // A name is another number in each pod, and none in some.
    expect(
        &of("[{port: http}]"),
        &[
            ("ops/web shop/web 8080", true, ""),
            ("ops/web shop/db 8080", false, ""),
            ("ops/web shop/db 9090", true, ""),
            ("ops/web shop/db dns", false, ""),
        ],
    );
    expect(
        "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}",
        &[
            ("shop/web shop/db 9090", true, ""),
            ("shop/web shop/db 8080", false, ""),
            ("shop/db shop/web 8080", true, ""),
            ("shop/db ops/web 8080", false, ""),
            ("shop/db 192.0.2.7 8080", false, ""),
        ],
    );
}

#[test]
fn policies_add_up() {
    expect_all(
        "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ops, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}]}]}
",
        &[
            ("ops/web shop/web 80", true, "networkpolicy shop/ops ingress[0]"),
            ("ops/web shop/web 81", true, "networkpolicy shop/ops ingress[0]"),
            ("shop/db shop/web 80", true, "networkpolicy shop/web ingress[0]"),
            (
                "shop/db shop/web 81",
                false,
                "isolated by shop/deny and 2 others, allowed by none",
            ),
            ("shop/web shop/db 80", false, "isolated by shop/deny, allowed by none"),
        ],
    );
}

#[test]
fn both_ends_have_to_allow_it() {
    expect(
        "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}",
        &[
            (
                "shop/web shop/db 80",
                true,
                "networkpolicy shop/p egress[0]",
            ),
            ("shop/web ops/web 80", false, ISOLATED),
            ("ops/web shop/web 80", true, ""),
        ],
    );
}

#[test]
fn pods_on_their_nodes_network_and_pods_that_have_ended_are_no_pods() {
    let all_pods = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}";
    expect(
        all_pods,
        &[
            ("ops/agent shop/web 80", false, ISOLATED),
            // The address of a pod that has ended is anybody's.
            ("10.2.0.9 shop/web 80", false, ISOLATED),
            ("shop/db shop/web 80", true, ""),
        ],
    );
    expect(
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.16.0.0/16}}]}]}",
        &[("ops/agent shop/web 80", true, "")],
    );
    let ops = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: ops}
spec: {podSelector: {}}
";
    let by = "on the network of its node: no policy selects it";
    expect_all(ops, &[("shop/web ops/agent 80", true, by)]);
}

#[test]
fn a_pod_reaches_itself() {
    expect(
        "{podSelector: {}, policyTypes: [Ingress, Egress]}",
        &[("shop/web shop/web 80", true, "the pod itself")],
    );
}

#[test]
fn tiers_of_cluster_policies() {
    let policies = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: admin}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {team: a}}}
  ingress:
  - {name: metrics, action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 9100}}}]}
  - {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 22}}}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: first}
spec:
  tier: Admin
  priority: 1
  subject: {pods: {podSelector: {matchLabels: {app: web}}, namespaceSelector: {}}}
  ingress:
  - {action: Pass, from: [{pods: {podSelector: {matchLabels: {app: db}}, namespaceSelector: {}}}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: base}
spec:
  tier: Baseline
  priority: 10
  subject: {namespaces: {}}
  ingress:
  - {action: Deny, from: [{namespaces: {matchLabels: {team: b}}}]}
";
    expect_all(
        policies,
        &[
            (
                "ops/web shop/db 9100",
                true,
                "clusternetworkpolicy admin (Admin) ingress[0] \"metrics\"",
            ),
            (
                "shop/web shop/db 22",
                false,
                "clusternetworkpolicy admin (Admin) ingress[1]",
            ),
            (
                "shop/web shop/db 80",
                true,
                "networkpolicy shop/p ingress[0]",
            ),
            ("ops/web shop/db 80", false, ISOLATED),
            // Passed over the Admin tier.
            ("shop/db shop/web 22", true, "no policy is about it"),
            (
                "ops/web shop/web 80",
                false,
                "clusternetworkpolicy base (Baseline) ingress[0]",
            ),
            ("shop/web shop/web 22", true, "the pod itself"),
        ],
    );
}

#[test]
fn mistakes_are_found_where_they_are() {
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n  \
        podSelector: {}\n  ingress:\n  - from:\n    - ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/8]}\n";
    let file = written(policy);
    let error = run(&["show", "x"], file.path()).unwrap_err().to_string();
    assert!(
        error.contains(
            ".yaml:8: networkpolicy.networking.k8s.io/p: spec.ingress[0].from[0].ipBlock.except[0]"
        ),
        "{error}"
    );
    let policy = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
        metadata: {name: p}\nspec:\n  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  \
        ingress:\n  - action: Deny\n    from:\n    - {users: {}}\n";
    let file = written(policy);
    let error = run(&["show", "x"], file.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("spec.ingress[0].from[0]: \"users\" is none of namespaces, pods"),
        "{error}"
    );
    assert!(error.contains(".yaml:11: "), "{error}");
}

#[test]
fn questions_that_make_no_sense() {
    let file = written(PODS);
    for (from, to, port, message) in [
        (
            "shop/x",
            "shop/db",
            "80",
            "no pod shop/x and no address shop/x: there are ops/agent, ",
        ),
        ("shop/web", "shop/db", "0", "--port 0: a port is 1 to 65535"),
        (
            "shop/web",
            "shop/db",
            "70000",
            "--port \"70000\": a port is 1 to 65535, or a name",
        ),
        (
            "shop/web",
            "shop/db",
            "80/ICMP",
            "protocol \"ICMP\" is none of TCP, UDP, SCTP",
        ),
        (
            "shop/web",
            "shop/db",
            "grpc",
            "--port \"grpc\": shop/db has http, dns",
        ),
        (
            "shop/web",
            "ops/web",
            "grpc",
            "--port \"grpc\": no port of ops/web has a name",
        ),
        (
            "ops/web",
            "fd00::9",
            "80",
            "ops/web and fd00::9 have no addresses of one family",
        ),
    ] {
        let error = run(
            &["check", "--from", from, "--to", to, "--port", port],
            file.path(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

/// The published policies of Online Boutique, read by a person.
#[test]
fn online_boutique() {
    let root = std::env::var_os("RIPSTOP_MANIFESTS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/manifests"),
        Into::into,
    );
    let folder = root.join("online-boutique");
    if !folder.is_dir() {
        eprintln!(
            "skipped: no {} (RIPSTOP_MANIFESTS names another folder)",
            folder.display()
        );
        return;
    }
    let matrix = run(&["matrix", "-o", "json"], &folder).unwrap();
    let matrix: Vec<Value> = serde_json::from_str(&matrix).unwrap();
    let allowed = [
        ("frontend", "adservice", "9555"),
        ("frontend", "cartservice", "7070"),
        ("checkoutservice", "cartservice", "7070"),
        ("frontend", "checkoutservice", "5050"),
        ("frontend", "currencyservice", "7000"),
        ("checkoutservice", "currencyservice", "7000"),
        ("checkoutservice", "emailservice", "8080"),
        ("checkoutservice", "paymentservice", "50051"),
        ("frontend", "productcatalogservice", "3550"),
        ("checkoutservice", "productcatalogservice", "3550"),
        ("recommendationservice", "productcatalogservice", "3550"),
        ("frontend", "recommendationservice", "8080"),
        ("cartservice", "redis-cart", "6379"),
        ("frontend", "shippingservice", "50051"),
        ("checkoutservice", "shippingservice", "50051"),
    ];
    let outside = "192.0.2.1";
    for pair in &matrix {
        let name = |end: &str| {
            pair[end]
                .as_str()
                .unwrap()
                .trim_start_matches("default/")
                .to_owned()
        };
        let (from, to) = (name("from"), name("to"));
        let listed = allowed.iter().find(|(a, b, _)| *a == from && *b == to);
        let expect = match listed {
            Some((_, _, port)) => vec![format!("{port}/TCP")],
            // Everybody may go out, and frontend may be reached.
            None if to == "frontend" || to == outside => vec!["all".to_owned()],
            None => Vec::new(),
        };
        assert_eq!(pair["ports"], serde_json::json!(expect), "{from} to {to}");
    }
    assert_eq!(matrix.len(), 13 * 13 - 1);
    let text = run(&["show", "redis-cart"], &folder).unwrap();
    assert_eq!(
        text,
        "default/redis-cart\n\
         ingress\n  accept pods app=cartservice of default, 6379/TCP: networkpolicy default/redis-cart ingress[0]\n  \
         deny   everything else: isolated by default/deny-all and default/redis-cart, allowed by none\n\
         egress\n  accept everybody, every port: networkpolicy default/redis-cart egress[0]\n"
    );
}

#[test]
fn a_service_is_asked_through_its_pods() {
    let policies = "
---
apiVersion: v1
kind: Service
metadata: {name: all, namespace: shop}
spec:
  selector: {tier: back}
  ports: [{name: web, port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: alone, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, labels: {tier: back, app: a}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8081}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop, labels: {tier: back, app: b}}
spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 8082}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec: {podSelector: {matchLabels: {tier: back}}, ingress: [{ports: [{port: 8081}]}]}
";
    let file = written(&format!("{PODS}{policies}"));
    let ask = |to: &str, port: &str| {
        run(
            &["check", "--from", "shop/web", "--to", to, "--port", port],
            file.path(),
        )
    };
    for port in ["80", "web", "80/tcp"] {
        assert_eq!(
            ask("service/shop/all", port).unwrap(),
            "yes: shop/web to shop/a 8081/TCP\n  \
             egress of shop/web: allowed: no policy is about it\n  \
             ingress of shop/a: allowed: networkpolicy shop/p ingress[0]\n\
             no: shop/web to shop/b 8082/TCP\n  \
             egress of shop/web: allowed: no policy is about it\n  \
             ingress of shop/b: denied: isolated by shop/p, allowed by none\n"
        );
    }
    for (to, port, message) in [
        ("svc/all", "80", "no service default/all in the manifests"),
        (
            "svc/shop/all",
            "81",
            "--port 81: service shop/all has 80/TCP, 53/UDP",
        ),
        (
            "svc/shop/all",
            "53/TCP",
            "--port 53/TCP: service shop/all has 80/TCP, 53/UDP",
        ),
        ("svc/shop/alone", "80", "service shop/alone selects no pods"),
    ] {
        assert_eq!(ask(to, port).unwrap_err().to_string(), message);
    }
}
