//! What planning network policies costs a node, without a kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ripstop_model::{
    LabelSelector, Namespace, NamespaceScope, NetworkPolicy, ObjectKey, Peer, Pod, PortMatch,
    PortSet, PortsOf, Protocol, Rule,
};
use ripstop_plan::policy::{PolicyPlanner, PolicyTables};

use crate::report::{Report, Row, quantile};

pub(crate) const NAMESPACES: u32 = 100;
pub(crate) const PODS: u32 = 5_000;
pub(crate) const LOCAL_PODS: u32 = 250;
/// Applications of a namespace: pods and policies are spread over them.
pub(crate) const APPS: u32 = 10;
const SAMPLES: u32 = 300;

pub(crate) fn measure(report: &mut Report) {
    for policies in [10, 10_000] {
        report.progress(&format!("planning {policies} policies"));
        cluster(policies, report);
    }
    report.progress("planning 10,000 policies that all select all pods");
    all_select_all(report);
    report.progress("planning a namespace of 5,000 pods");
    relabel(report);
    report.progress("planning 100,000 address blocks");
    blocks(1, report);
    blocks(1_000, report);
}

/// A planner with the sum of its changes.
pub(crate) struct Planned {
    pub(crate) planner: PolicyPlanner,
    pub(crate) tables: PolicyTables,
}

impl Planned {
    pub(crate) fn new() -> Self {
        Self {
            planner: PolicyPlanner::new("node"),
            tables: PolicyTables::default(),
        }
    }

    /// Plans all that has come; how long that took.
    fn plan(&mut self) -> Duration {
        let start = Instant::now();
        while !self.planner.is_settled() {
            self.planner.take_change(&mut self.tables);
        }
        start.elapsed()
    }

    /// Plans after an event as the engine waits for it: what nobody uses any
    /// more goes afterwards.
    fn after(&mut self, event: impl FnOnce(&mut PolicyPlanner)) -> f64 {
        let start = Instant::now();
        event(&mut self.planner);
        self.planner.take_change(&mut self.tables);
        let took = start.elapsed();
        self.plan();
        took.as_secs_f64() * 1e3
    }

    fn sizes(&self) -> String {
        format!(
            "{} classes, {} prefixes, {} rules, {} port tables",
            self.planner.classes(),
            self.tables.classes.len(),
            self.tables.rules.len(),
            self.tables.ports.len()
        )
    }

    pub(crate) fn namespace(&mut self, name: &str, team: &str) {
        self.planner.upsert_namespace(Namespace {
            name: name.to_owned(),
            labels: [("kubernetes.io/metadata.name", name), ("team", team)]
                .into_iter()
                .collect(),
        });
    }

    fn pod(&mut self, namespace: &str, index: u32, app: u32, local: bool) {
        let address = IpAddr::from(Ipv4Addr::from(0x0a00_0001 + index));
        self.pod_at(namespace, index, app, address, local);
    }

    pub(crate) fn pod_at(
        &mut self,
        namespace: &str,
        index: u32,
        app: u32,
        address: IpAddr,
        local: bool,
    ) {
        let key = ObjectKey::new(namespace, format!("pod-{index}"));
        let app = format!("app-{app}");
        let hash = format!("{:x}", index / 5);
        if local {
            self.planner.add_local_pod(&key, None, vec![address]);
        }
        self.planner.upsert_pod(Pod {
            uid: index.to_string().into(),
            labels: [
                ("app", app.as_str()),
                ("pod-template-hash", hash.as_str()),
                ("app.kubernetes.io/managed-by", "bench"),
            ]
            .into_iter()
            .collect(),
            addresses: [address].into(),
            ..Pod::new(key)
        });
    }
}

pub(crate) fn selected(key: &str, value: &str) -> LabelSelector {
    LabelSelector::labels([(key, value)])
}

fn rule(peers: Vec<Peer>, port: u16) -> Rule {
    Rule {
        peers: Some(peers),
        ports: Some(vec![PortMatch {
            protocol: PortsOf::Protocol(Protocol::Tcp),
            ports: PortSet::Range(port..=port),
        }]),
    }
}

/// At one port.
pub(crate) fn rule_for_everybody(port: u16) -> Rule {
    Rule {
        peers: None,
        ..rule(Vec::new(), port)
    }
}

/// Lets in an application of the same namespace, a team's namespaces and a block.
pub(crate) fn policy(index: u32) -> NetworkPolicy {
    let namespace = format!("ns-{}", index % NAMESPACES);
    let app = index / NAMESPACES % APPS;
    let [a, b, _, _] = index.to_be_bytes().map(u16::from);
    let port = 1024 + u16::try_from(index % 20_000).unwrap_or(a + b);
    let rules = vec![
        rule(
            vec![Peer::Pods {
                namespaces: NamespaceScope::Own,
                pods: selected("app", &format!("app-{}", (app + index / 1_000) % APPS)),
            }],
            port,
        ),
        rule(
            vec![Peer::Pods {
                namespaces: NamespaceScope::Selected(selected("team", &format!("t-{}", index % 7))),
                pods: LabelSelector::default(),
            }],
            443,
        ),
        rule(
            vec![Peer::Block {
                cidr: format!("172.{}.0.0/16", index % 16 + 16)
                    .parse()
                    .unwrap_or_default(),
                except: Vec::new(),
            }],
            80,
        ),
    ];
    NetworkPolicy {
        dry_run: false,
        key: ObjectKey::new(namespace, format!("policy-{index}")),
        pod_selector: selected("app", &format!("app-{app}")),
        ingress: Some(rules),
        egress: None,
    }
}

/// A cluster with so many policies, not planned yet.
pub(crate) fn fill(planned: &mut Planned, policies: u32) {
    for index in 0..NAMESPACES {
        planned.namespace(&format!("ns-{index}"), &format!("t-{}", index % 7));
    }
    for index in 0..PODS {
        let namespace = format!("ns-{}", index % NAMESPACES);
        let app = index / NAMESPACES % APPS;
        planned.pod(&namespace, index, app, index < LOCAL_PODS);
    }
    for index in 0..policies {
        planned.planner.upsert_policy(policy(index));
    }
}

fn cluster(policies: u32, report: &mut Report) {
    let mut planned = Planned::new();
    let start = Instant::now();
    fill(&mut planned, policies);
    planned.plan();
    let first = start.elapsed().as_secs_f64() * 1e3;
    let created: Vec<_> = (0..SAMPLES)
        .map(|index| {
            // Selects pods of this node, of applications 0 to 2.
            let new = policy(100_000 + index);
            let key = new.key.clone();
            let took = planned.after(|planner| planner.upsert_policy(new));
            planned.planner.remove_policy(&key);
            planned.plan();
            took
        })
        .collect();
    let relabelled: Vec<_> = (0..SAMPLES)
        .map(|index| {
            let index = index * 16;
            let namespace = format!("ns-{}", index % NAMESPACES);
            let start = Instant::now();
            planned.pod(&namespace, index, index % 3, index < LOCAL_PODS);
            planned.planner.take_change(&mut planned.tables);
            let took = start.elapsed().as_secs_f64() * 1e3;
            planned.plan();
            took
        })
        .collect();
    let goal = |goal: &str| {
        if policies > 10 {
            goal.to_owned()
        } else {
            String::new()
        }
    };
    let what = format!("{policies} policies, {PODS} pods, {LOCAL_PODS} of them here");
    row(
        report,
        format!("{what}: planned from nothing"),
        format!("{first:.1} ms; {}", planned.sizes()),
        String::new(),
    );
    row(
        report,
        format!("{what}: a policy created, planned"),
        quantiles(&created),
        goal("<= 20 ms to enforced"),
    );
    row(
        report,
        format!("{what}: a pod's label changed, planned"),
        quantiles(&relabelled),
        String::new(),
    );
}

/// Every policy selects every pod of this node.
fn all_select_all(report: &mut Report) {
    const POLICIES: u32 = 10_000;
    let mut planned = Planned::new();
    planned.namespace("n", "a");
    for index in 0..PODS {
        planned.pod("n", index, index % APPS, index < LOCAL_PODS);
    }
    let of = |index: u32| NetworkPolicy {
        dry_run: false,
        key: ObjectKey::new("n", format!("policy-{index}")),
        pod_selector: LabelSelector::default(),
        ..policy(index)
    };
    let start = Instant::now();
    for index in 0..POLICIES {
        planned.planner.upsert_policy(of(index));
    }
    planned.plan();
    let first = start.elapsed().as_secs_f64() * 1e3;
    let times: Vec<_> = (0..20)
        .map(|index| {
            let new = of(POLICIES + index);
            planned.after(|planner| planner.upsert_policy(new))
        })
        .collect();
    let what = format!("{POLICIES} policies that all select all of {LOCAL_PODS} pods");
    row(
        report,
        format!("{what}: planned"),
        format!("{first:.0} ms; {}", planned.sizes()),
        String::new(),
    );
    row(
        report,
        format!("{what}: one more, planned"),
        quantiles(&times),
        "<= 20 ms to enforced".into(),
    );
}

/// One namespace of 5,000 pods, named by policies through its labels.
pub(crate) fn fill_relabelled(planned: &mut Planned) {
    planned.namespace("big", "a");
    planned.namespace("small", "s");
    for index in 0..PODS {
        planned.pod("big", index, index % APPS, false);
    }
    for index in 0..LOCAL_PODS {
        planned.pod("small", PODS + index, index % APPS, true);
    }
    for index in 0..1_000 {
        let team = if index % 2 == 0 { "a" } else { "b" };
        let mut policy = policy(index);
        policy.key.namespace = "small".to_owned();
        policy.ingress = Some(vec![rule(
            vec![Peer::Pods {
                namespaces: NamespaceScope::Selected(selected("team", team)),
                pods: selected("app", &format!("app-{}", index / 2 % APPS)),
            }],
            1024 + u16::try_from(index).unwrap_or_default(),
        )]);
        planned.planner.upsert_policy(policy);
    }
}

fn relabel(report: &mut Report) {
    let mut planned = Planned::new();
    fill_relabelled(&mut planned);
    planned.plan();
    let times: Vec<_> = (0..20)
        .map(|turn| {
            let start = Instant::now();
            planned.namespace("big", if turn % 2 == 0 { "b" } else { "a" });
            planned.planner.take_change(&mut planned.tables);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let sizes = planned.sizes();
    let ours = format!("{}; {sizes}", quantiles(&times));
    row(report, "a namespace's label changed, 5,000 pods behind it, 1,000 policies that ask for it: planned".into(), ours, "<= 200 ms on a node".into());
}

const BLOCKS: u32 = 100_000;

/// 100,000 blocks, in so many rules.
pub(crate) fn blocks_policy(rules: u32) -> NetworkPolicy {
    let block = |index: u32| {
        let address = Ipv4Addr::from(0x1400_0000 + index * 256);
        Peer::Block {
            cidr: format!("{address}/24").parse().unwrap_or_default(),
            except: vec![format!("{address}/30").parse().unwrap_or_default()],
        }
    };
    let per_rule = BLOCKS / rules;
    let rules_of = (0..rules).map(|index| {
        let first = index * per_rule;
        let port = 1024 + u16::try_from(index).unwrap_or_default();
        rule((first..first + per_rule).map(block).collect(), port)
    });
    NetworkPolicy {
        key: ObjectKey::new("ns-0", "blocks"),
        pod_selector: LabelSelector::default(),
        ingress: Some(rules_of.collect()),
        egress: None,
        dry_run: false,
    }
}

fn blocks(rules: u32, report: &mut Report) {
    let mut planned = Planned::new();
    planned.namespace("ns-0", "a");
    planned.pod("ns-0", 0, 0, true);
    planned.plan();
    let policy = blocks_policy(rules);
    let took = planned.after(|planner| planner.upsert_policy(policy));
    let ours = format!("{took:.0} ms; {}", planned.sizes());
    row(
        report,
        format!("{BLOCKS} blocks, each with an exception, in {rules} rules: planned"),
        ours,
        "< 2 s to loaded".into(),
    );
}

fn quantiles(times: &[f64]) -> String {
    let at = |q| quantile(times.iter().copied(), q);
    format!("p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99))
}

fn row(report: &mut Report, what: String, ours: String, goal: String) {
    report.add(Row {
        what,
        ours,
        peer: String::new(),
        ratio: None,
        goal,
    });
}
