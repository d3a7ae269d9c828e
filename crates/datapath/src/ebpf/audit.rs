//! The kernel against the plan.

use std::collections::BTreeSet;

use ripstop_abi::{FLAG_HOST_PORT, ServiceAddress};
use ripstop_model::LocalPod;
use ripstop_plan::Tables;

use super::pods::PodRows;
use super::readback::Scope;
use super::wanted::{Translation, key};
use super::{EbpfEngine, links, policy, ranges, route_key};
use crate::compare_policies::difference_but_classes;
use crate::engine::{Drift, Error, Part, Place};

/// Reads tables back and makes them what they should be. Goes on after an error
/// and gives the first.
pub(crate) fn audit(
    engine: &mut EbpfEngine,
    desired: &Tables,
    pods: &[LocalPod],
    scope: Scope,
) -> Result<Drift, Error> {
    let routes = engine.maps.routes.rows().clone();
    engine.read_back(scope)?;
    let mut audit = Audit {
        repaired: Vec::new(),
        result: Ok(()),
    };
    // Policies before pods: one without its row gets nothing. Pods before services:
    // a flow that begins by an uplink's program would get no answer from a pod
    // whose program is not there yet.
    if let Err(error) = engine.grow_for_tables(desired) {
        audit.failed(error);
    }
    let policies = &mut engine.policies;
    audit.written(policy::audit(
        policies,
        &mut engine.maps,
        &desired.policy,
        scope,
    ));
    audit.pods(engine, pods);
    audit.services(engine, desired);
    // Also of backends that went while there was no engine.
    engine.disconnect_stranded();
    // Routes as they were applied: resolving them is not ours.
    let wanted: BTreeSet<_> = desired.routes.keys().map(route_key).collect();
    for (key, route) in routes.into_iter().filter(|(key, _)| wanted.contains(key)) {
        let row = || format!("route {key:?}");
        audit.note(row(), engine.maps.routes.put(key, route, row));
    }
    let stale: Vec<_> = engine
        .maps
        .routes
        .rows()
        .keys()
        .filter(|key| !wanted.contains(key))
        .copied()
        .collect();
    for key in stale {
        audit.note(
            format!("route {key:?} (removed)"),
            engine.maps.routes.remove(&key),
        );
    }
    for (row, outcome) in ranges::audit(&mut engine.maps, &desired.ranges) {
        audit.note(row, outcome);
    }
    match engine.take_over() {
        Ok(()) => audit.attachments(engine, pods),
        // Those of the other version go on.
        Err(error) => audit.failed(error),
    }
    audit.result.map(|()| Drift {
        repaired: audit.repaired,
    })
}

/// See [`crate::Datapath::audit_part`].
pub(crate) fn audit_part(
    engine: &mut EbpfEngine,
    desired: &Tables,
    pods: &[LocalPod],
    part: Part,
) -> Result<(Drift, Option<Part>), Error> {
    let in_parts = policy::goes_in_parts(&engine.policies, &desired.policy);
    match part.0 {
        Place::Rest if in_parts => {
            let drift = audit(engine, desired, pods, Scope::ButClasses)?;
            Ok((drift, Some(policy::FIRST)))
        }
        Place::Rest => Ok((audit(engine, desired, pods, Scope::All)?, None)),
        place => {
            let EbpfEngine { policies, maps, .. } = engine;
            let (repaired, next) = policy::audit_classes(policies, maps, &desired.policy, place)?;
            Ok((Drift { repaired }, next))
        }
    }
}

/// See [`crate::Datapath::verify_part`].
pub(crate) fn verify_part(
    engine: &EbpfEngine,
    desired: &Tables,
    part: Part,
) -> Result<(Vec<String>, Option<Part>), Error> {
    let (maps, planned) = (&engine.maps.policy, &desired.policy);
    if part != Part::default() {
        return policy::verify_classes(maps, planned, part.0);
    }
    let found = policy::policies_but_classes(maps)?;
    let lines = difference_but_classes(planned, &found);
    Ok((lines, Some(policy::FIRST)))
}

struct Audit {
    repaired: Vec<String>,
    result: Result<(), Error>,
}

impl Audit {
    fn note(&mut self, row: String, outcome: Result<bool, Error>) {
        match outcome {
            Ok(true) => self.repaired.push(row),
            Ok(false) => {}
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) {
        if self.result.is_ok() {
            self.result = Err(error);
        }
    }

    fn attachments(&mut self, engine: &mut EbpfEngine, pods: &[LocalPod]) {
        match engine.attach_links() {
            Ok(attached) => self.repaired.extend(attached),
            Err(error) => self.failed(error),
        }
        let uplinks = engine.config.uplinks.iter().copied();
        let kept = uplinks
            .chain(pods.iter().map(|pod| pod.host_ifindex))
            .collect();
        match links::retain(&mut engine.netlink, &kept) {
            Ok(removed) => self.repaired.extend(removed),
            Err(error) => self.failed(error),
        }
    }

    fn services(&mut self, engine: &mut EbpfEngine, desired: &Tables) {
        let keys: BTreeSet<ServiceAddress> = desired.frontends.keys().map(key).collect();
        let services = engine.frontends.with_flag(FLAG_HOST_PORT, false);
        let stale: Vec<_> = services
            .filter(|key| !keys.contains(key))
            .map(|key| (key, None))
            .collect();
        let mut translation = Translation::default();
        let rows = desired.frontends.iter();
        let rows = rows.map(|(to, row)| (key(to), Some(translation.row(to, row))));
        let plan = engine.frontends.plan_services(rows.chain(stale));
        self.written(engine.write_growing(plan));
    }

    fn pods(&mut self, engine: &mut EbpfEngine, pods: &[LocalPod]) {
        engine.pods = pods
            .iter()
            .map(|pod| (pod.container_id.clone(), pod.clone()))
            .collect();
        let mut wanted = PodRows::default();
        for pod in pods {
            match engine.write_pod(pod) {
                Ok(done) => self.repaired.extend(done),
                Err(error) => self.failed(error),
            }
            let rows = PodRows::of(pod, &engine.config.node_addresses);
            wanted.endpoints.extend(rows.endpoints);
            wanted.frontends.extend(rows.frontends);
        }
        let of_ports = engine.frontends.with_flag(FLAG_HOST_PORT, true);
        let stale: Vec<_> = of_ports
            .filter(|key| !wanted.frontends.contains_key(key))
            .map(|key| (key, None))
            .collect();
        let plan = engine.frontends.plan_host_ports(stale);
        self.written(engine.write_growing(plan));
        let maps = &mut engine.maps;
        let rows = maps.endpoints.rows().keys();
        for key in rows
            .filter(|k| !wanted.endpoints.contains_key(k))
            .copied()
            .collect::<Vec<_>>()
        {
            let row = format!("endpoint {} (removed)", std::net::IpAddr::from(key));
            self.note(row, maps.endpoints.remove(&key));
        }
    }

    fn written(&mut self, (rows, result): (Vec<String>, Result<(), Error>)) {
        self.repaired.extend(rows);
        if let Err(error) = result {
            self.failed(error);
        }
    }
}
