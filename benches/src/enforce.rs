//! What enforcing network policies costs, with each engine: packets, and changes
//! until they are in force on the last pod.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::nftables::NftEngine;
use ripstop_model::{NetworkPolicy, ObjectKey};
use ripstop_plan::Change;
use ripstop_plan::policy::PolicyPlanner;

use crate::load::{Pattern, Sample};
use crate::paired::{Rounds, compare};
use crate::policy::{self, APPS, LOCAL_PODS, NAMESPACES, PODS as CLUSTER, Planned};
use crate::report::{Report, Row, median, quantile};
use crate::rig::{Engine, Engines, Kind, PODS, PORT, Rig, with_own_mounts};

/// Policies of the nodes that are compared; the first has none.
const SIZES: [u32; 3] = [0, 10, 10_000];
const CREATED: u32 = 200;
const RELABELLED: usize = 10;

pub(crate) fn measure(engines: Engines, rounds: Rounds, report: &mut Report) -> Result<()> {
    with_own_mounts(|| {
        if engines.has(Kind::Ebpf) {
            one::<EbpfEngine>(rounds, report)?;
        }
        if engines.has(Kind::Nftables) {
            one::<NftEngine>(rounds, report)?;
        }
        Ok(())
    })
}

fn one<E: Engine>(rounds: Rounds, report: &mut Report) -> Result<()> {
    report.progress(&format!("{}: nodes with policies", E::NAME));
    let mut nodes = Vec::new();
    for policies in SIZES {
        nodes.push(Node::<E>::new(&format!("pol{policies}"), policies)?);
    }
    rates(&nodes, rounds, report)?;
    for node in &mut nodes[1..] {
        changes(node, report)?;
    }
    drop(nodes);
    relabel::<E>(report)
}

/// An engine with a planner before it.
pub(crate) struct Node<E: Engine> {
    pub(crate) rig: Rig<E>,
    pub(crate) planned: Planned,
    policies: u32,
}

impl<E: Engine> Node<E> {
    pub(crate) fn empty(name: &str) -> Result<Self> {
        Ok(Self {
            rig: Rig::new(name)?,
            planned: Planned::new(),
            policies: 0,
        })
    }

    /// So many policies over a cluster's pods; some select the client and the
    /// server of the rig, and let them speak.
    fn new(name: &str, policies: u32) -> Result<Self> {
        let mut node = Self::empty(name)?;
        node.policies = policies;
        policy::fill(&mut node.planned, policies);
        for (index, address) in PODS.iter().enumerate() {
            node.add_real(index, address.parse()?);
        }
        if policies > 0 {
            node.planned.planner.upsert_policy(speak());
        }
        node.settle()?;
        Ok(node)
    }

    pub(crate) fn add_real(&mut self, index: usize, address: IpAddr) {
        let number = CLUSTER + u32::try_from(index).unwrap_or_default();
        self.planned.pod_at("ns-0", number, 0, address, true);
    }

    /// An event until what follows from it is in the kernel for all pods.
    pub(crate) fn enforce(&mut self, event: impl FnOnce(&mut PolicyPlanner)) -> Result<f64> {
        let start = Instant::now();
        event(&mut self.planned.planner);
        self.apply()?;
        let took = start.elapsed();
        self.settle()?;
        Ok(took.as_secs_f64() * 1e3)
    }

    pub(crate) fn apply(&mut self) -> Result<()> {
        let Planned { planner, tables } = &mut self.planned;
        let change = Change {
            policy: planner.take_change(tables),
            ..Change::default()
        };
        Ok(self.rig.run(|engine| engine.apply(&change))??)
    }

    /// What nobody uses any more goes afterwards.
    pub(crate) fn settle(&mut self) -> Result<()> {
        while !self.planned.planner.is_settled() {
            self.apply()?;
        }
        Ok(())
    }
}

/// Selects all of the first namespace's pods of one application, in which the
/// rig's are, and allows what is measured in both directions.
fn speak() -> NetworkPolicy {
    let all = || Some(vec![policy::rule_for_everybody(PORT)]);
    NetworkPolicy {
        key: ObjectKey::new("ns-0", "speak"),
        pod_selector: policy::selected("app", "app-0"),
        ingress: all(),
        egress: all(),
        dry_run: false,
    }
}

/// Connections and requests of two pods that policies are about, beside none.
fn rates<E: Engine>(nodes: &[Node<E>], rounds: Rounds, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().unwrap_or("ripstop-bench");
    let mut servers = Vec::new();
    for node in nodes {
        servers.push(node.rig.serve(bench, 1)?);
    }
    std::thread::sleep(Duration::from_millis(200));
    let target = SocketAddr::new(PODS[1].parse()?, PORT);
    for (what, load) in [("connections", Pattern::Crr), ("requests", Pattern::Rr)] {
        report.progress(&format!("{}: {what}", E::NAME));
        let samples = rounds.measure(nodes, |node, time| {
            node.rig.sample(bench, target, load, time)
        })?;
        let rate = |samples: &[Sample]| {
            let rate = median(samples.iter().map(|one| one.rate));
            let cpu = median(samples.iter().map(|one| one.cpu_us));
            format!("{rate:.0}/s, {cpu:.2} µs of CPU")
        };
        for (node, mine) in nodes.iter().zip(&samples).skip(1) {
            let none = &samples[0];
            report.add(Row {
                what: format!("{}, {} policies: {what}", E::NAME, node.policies),
                ours: rate(mine),
                peer: format!("no policy: {}", rate(none)),
                ratio: Some(compare(mine, none)),
                goal: match E::NAME {
                    "eBPF" => ">= 0.98".to_owned(),
                    _ => String::new(),
                },
            });
        }
    }
    Ok(())
}

/// A policy is created: until it is in force on the last pod.
fn changes<E: Engine>(node: &mut Node<E>, report: &mut Report) -> Result<()> {
    report.progress(&format!("{}: a policy is created", E::NAME));
    let mut times = Vec::new();
    for index in 0..CREATED {
        let new = policy::policy(100_000 + index);
        let key = new.key.clone();
        times.push(node.enforce(|planner| planner.upsert_policy(new))?);
        node.enforce(|planner| planner.remove_policy(&key))?;
    }
    let what = format!(
        "{}, {} policies, {LOCAL_PODS} local pods: a policy created, enforced on the last",
        E::NAME,
        node.policies
    );
    add(report, what, &times, "p99 <= 20 ms");
    Ok(())
}

/// A namespace of 5,000 pods gets another label.
fn relabel<E: Engine>(report: &mut Report) -> Result<()> {
    report.progress(&format!("{}: a namespace's label changes", E::NAME));
    let mut node = Node::<E>::empty("relabel")?;
    policy::fill_relabelled(&mut node.planned);
    node.settle()?;
    let mut times = Vec::new();
    for turn in 0..RELABELLED {
        let team = if turn % 2 == 0 { "b" } else { "a" };
        let start = Instant::now();
        node.planned.namespace("big", team);
        node.apply()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        node.settle()?;
    }
    let what = format!(
        "{}: a namespace's label changed, {CLUSTER} pods behind it, 1000 policies that ask: enforced",
        E::NAME
    );
    add(report, what, &times, "<= 200 ms");
    Ok(())
}

pub(crate) fn add(report: &mut Report, what: String, times: &[f64], goal: &str) {
    let at = |q| quantile(times.iter().copied(), q);
    report.add(Row {
        what,
        ours: format!("p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99)),
        peer: String::new(),
        ratio: None,
        goal: goal.to_owned(),
    });
}

// Every application has as many pods in a namespace as any other.
const _: () = assert!(CLUSTER.is_multiple_of(NAMESPACES * APPS));
