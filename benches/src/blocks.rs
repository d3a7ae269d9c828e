//! 100,000 blocks in `ipBlock`s, in each engine: loaded, and held against the plan
//! as once a minute.

use std::time::Instant;

use anyhow::{Result, ensure};
use ripstop_datapath::Part;
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::nftables::NftEngine;
use ripstop_plan::Tables;

use crate::enforce::{Node, add};
use crate::policy;
use crate::report::{Report, Row};
use crate::rig::{Engine, Engines, Kind, PODS, with_own_mounts};

const AUDITS: usize = 5;

pub(crate) fn measure(engines: Engines, report: &mut Report) -> Result<()> {
    with_own_mounts(|| {
        for rules in [1, 1_000] {
            if engines.has(Kind::Ebpf) {
                blocks::<EbpfEngine>(rules, report)?;
            }
            if engines.has(Kind::Nftables) {
                blocks::<NftEngine>(rules, report)?;
            }
        }
        Ok(())
    })
}

/// With an exception each, in so many rules.
fn blocks<E: Engine>(rules: u32, report: &mut Report) -> Result<()> {
    report.progress(&format!("{}: 100,000 blocks in {rules} rules", E::NAME));
    let mut node = Node::<E>::empty("blocks")?;
    node.planned.namespace("ns-0", "a");
    node.add_real(1, PODS[1].parse()?);
    node.settle()?;
    let policy = policy::blocks_policy(rules);
    let took = node.enforce(|planner| planner.upsert_policy(policy))?;
    report.add(Row {
        what: format!("{}: 100000 blocks in {rules} rules, loaded", E::NAME),
        ours: format!("{took:.0} ms"),
        peer: String::new(),
        ratio: None,
        goal: "< 2 s".to_owned(),
    });
    audit(&mut node, rules, report)
}

/// Changes wait for a part of an audit.
fn audit<E: Engine>(node: &mut Node<E>, rules: u32, report: &mut Report) -> Result<()> {
    let tables = Tables {
        policy: node.planned.tables.clone(),
        ..Tables::default()
    };
    // The first leaves what the plan has: the rig's other pods are not in it.
    node.rig.audit(&tables)?;
    let (mut whole, mut parts) = (Vec::new(), Vec::new());
    for _ in 0..AUDITS {
        let start = Instant::now();
        let mut next = Some(Part::default());
        while let Some(part) = next {
            let start = Instant::now();
            let repaired;
            (repaired, next) = node.rig.audit_part(&tables, part)?;
            parts.push(start.elapsed().as_secs_f64() * 1e3);
            ensure!(repaired.is_empty(), "repaired {repaired:?}");
        }
        whole.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let what = |what| format!("{}: 100000 blocks in {rules} rules, {what}", E::NAME);
    add(report, what("an audit"), &whole, "");
    add(
        report,
        what("a part of an audit, for which changes wait"),
        &parts,
        "<= 100 ms",
    );
    Ok(())
}
