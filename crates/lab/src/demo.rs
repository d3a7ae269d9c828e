//! The walk through the example application: what is tried, from where, and who
//! must answer. Pure; [`crate::probe::from_pod`] tries it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::probe::{Check, Expect, Finding, Plan, Protocol, Source};
use crate::ready::Cluster;

/// The example application.
pub const MANIFEST: &str = include_str!("../../../examples/shop.yaml");

/// Connections that show how replicas share the load.
const SHARED: usize = 30;

/// One line of the walk.
#[derive(Clone, Debug)]
pub struct Step {
    pub title: &'static str,
    pub from: Source,
    pub checks: Vec<Check>,
    /// How many different pods have to answer.
    pub answers: usize,
}

/// The example is not there as it should be.
#[derive(Debug, thiserror::Error)]
#[error("the example application has no {0}: was something else applied to this lab?")]
pub struct Missing(&'static str);

/// Pods and addresses of the example application.
#[derive(Debug)]
pub struct Shop {
    client: Source,
    web: Vec<Source>,
    service: String,
}

impl Shop {
    /// # Errors
    /// If a pod or service is missing.
    pub fn find(cluster: &Cluster) -> Result<Self, Missing> {
        let sources = Plan::new(cluster).sources;
        let of = |app: &str| {
            let mine = |source: &&Source| source.place.pod.starts_with(&format!("{app}-"));
            sources.iter().filter(mine).cloned().collect::<Vec<_>>()
        };
        let service = cluster
            .services
            .get(&("default".to_owned(), "web".to_owned()));
        let address = service.and_then(|service| service.spec.as_ref()?.cluster_ip.clone());
        Ok(Self {
            client: of("client")
                .into_iter()
                .next()
                .ok_or(Missing("pod client"))?,
            web: of("web"),
            service: address.ok_or(Missing("service web"))?,
        })
    }

    /// The pod that asks.
    pub fn client(&self) -> &Source {
        &self.client
    }

    pub fn replicas(&self) -> usize {
        self.web.len()
    }

    /// The lines, in the order of the systems; `environment` is the client's.
    ///
    /// # Errors
    /// If there is no replica on the client's node, or on another one.
    pub fn steps(&self, environment: &BTreeMap<String, String>) -> Result<Vec<Step>, Missing> {
        let on_client_node = |source: &&Source| source.place.node == self.client.place.node;
        let near = self
            .web
            .iter()
            .find(on_client_node)
            .ok_or(Missing("web pod on that node"))?;
        let far = self.web.iter().find(|source| !on_client_node(source));
        let far = far.ok_or(Missing("web pod on another node"))?;
        let loopback = Source {
            // Inside a pod the other container sees localhost.
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
            ..near.clone()
        };
        let variable = |name: &str| environment.get(name).cloned().unwrap_or_default();
        let port = variable("WEB_SERVICE_PORT").parse().unwrap_or_default();
        let all = names(&self.web);
        let from_client = |title, checks| Step {
            title,
            from: self.client.clone(),
            checks,
            answers: 1,
        };
        Ok(vec![
            Step {
                title: "localhost inside a pod",
                from: loopback,
                checks: vec![check("127.0.0.1", 9090, &names([near]))],
                answers: 1,
            },
            from_client(
                "pod to pod, one node",
                vec![check(&first(near), 8080, &names([near]))],
            ),
            from_client(
                "pod to pod, across nodes",
                vec![check(&first(far), 8080, &names([far]))],
            ),
            from_client("service by ClusterIP", vec![check(&self.service, 80, &all)]),
            from_client("service by name", vec![check("web", 80, &all)]),
            from_client(
                "service by its full name",
                vec![check("web.default.svc.cluster.local", 80, &all)],
            ),
            from_client(
                "a pod of a StatefulSet by name",
                vec![check("db-1.db", 6379, &["default/db-1".to_owned()])],
            ),
            from_client(
                "service by environment variable",
                vec![check(&variable("WEB_SERVICE_HOST"), port, &all)],
            ),
            self.shared("replicas share the load"),
        ])
    }

    /// Many connections to the service: every replica answers some.
    pub fn shared(&self, title: &'static str) -> Step {
        Step {
            title,
            from: self.client.clone(),
            checks: vec![check("web", 80, &names(&self.web)); SHARED],
            answers: self.web.len(),
        }
    }
}

fn names<'a>(pods: impl IntoIterator<Item = &'a Source>) -> Vec<String> {
    pods.into_iter()
        .map(|pod| format!("{}/{}", pod.namespace, pod.place.pod))
        .collect()
}

fn first(pod: &Source) -> String {
    pod.addresses
        .first()
        .map(IpAddr::to_string)
        .unwrap_or_default()
}

fn check(host: &str, port: u16, pods: &[String]) -> Check {
    Check {
        host: host.to_owned(),
        port,
        protocol: Protocol::Tcp,
        expect: Expect::Answer(pods.to_vec()),
    }
}

/// What came of a step: who answered how often, or what is wrong.
///
/// # Errors
/// The first attempt that failed, or that too few pods answered.
pub fn judge(step: &Step, findings: &[Finding]) -> Result<String, String> {
    if let Some(error) = findings.iter().find_map(|finding| finding.error.as_ref()) {
        return Err(error.clone());
    }
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        *answers
            .entry(finding.by.as_deref().unwrap_or("somebody"))
            .or_default() += 1;
    }
    let who: BTreeSet<&str> = answers.keys().copied().collect();
    let list: Vec<String> = match findings.len() {
        1 => who.iter().map(|&pod| short(pod).to_owned()).collect(),
        _ => answers
            .iter()
            .map(|(pod, times)| format!("{} {times}x", short(pod)))
            .collect(),
    };
    let list = list.join(", ");
    match who.len() == step.answers {
        true => Ok(list),
        false => Err(format!(
            "{} of {} pods answered: {list}",
            who.len(),
            step.answers
        )),
    }
}

/// Without the namespace, which is `default` throughout.
fn short(pod: &str) -> &str {
    pod.split_once('/').map_or(pod, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enter::Place;

    fn step(answers: usize) -> Step {
        let place = Place {
            node: "node1".into(),
            uid: "u".into(),
            pod: "client-1".into(),
            container: "shell".into(),
        };
        Step {
            title: "",
            from: Source {
                place,
                namespace: "default".into(),
                addresses: Vec::new(),
            },
            checks: Vec::new(),
            answers,
        }
    }

    fn finding(by: Option<&str>, error: Option<&str>) -> Finding {
        Finding {
            micros: 1,
            error: error.map(str::to_owned),
            by: by.map(str::to_owned),
        }
    }

    #[test]
    fn every_replica_has_to_answer_and_no_attempt_may_fail() {
        let (a, b) = (
            finding(Some("default/web-a"), None),
            finding(Some("default/web-b"), None),
        );
        let refused = finding(None, Some("connection refused"));
        for (step, findings, expected) in [
            (step(1), vec![a.clone()], Ok("web-a")),
            (
                step(2),
                vec![a.clone(), b.clone(), a.clone()],
                Ok("web-a 2x, web-b 1x"),
            ),
            (
                step(2),
                vec![a.clone(), a.clone()],
                Err("1 of 2 pods answered: web-a 2x"),
            ),
            (
                step(1),
                vec![a.clone(), b],
                Err("2 of 1 pods answered: web-a 1x, web-b 1x"),
            ),
            (step(1), vec![a, refused], Err("connection refused")),
        ] {
            let judged = judge(&step, &findings);
            assert_eq!(judged.as_deref().map_err(String::as_str), expected);
        }
    }
}
