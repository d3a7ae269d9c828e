//! What of a status is not as it should be, and what to do about it: for who was
//! called at night.

use serde::{Deserialize, Serialize};

use super::nodes::NodeView;
use super::recent::Counters;
use super::status::{Dns, Engine, Status};

/// Something that does not work as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Advice {
    /// One of [`IDS`].
    pub(crate) id: String,
    /// What is degraded, and what still works.
    pub(crate) text: String,
    pub(crate) what_to_do: String,
}

/// Of what can be counted in hundreds: from here on it is said.
const FULL: u64 = 90;

/// Whom a status is told only who asks them: metrics are without it.
pub(crate) const NODES_SILENT: &str = "nodes_silent";

/// What advice can be about; each drop is one, too.
const IDS: [&str; 15] = [
    "kernel_not_as_planned",
    "api_refuses",
    "api_away",
    "api_away_since_start",
    "not_all_listed",
    "ebpf_refused",
    NODES_SILENT,
    "upstream_dns_dead",
    "upstream_dns_partly_dead",
    "names_unknown",
    "names_limited",
    "table_full",
    "pod_addresses_used_up",
    "repaired",
    "ignored",
];

/// Every id that [`Advice`] can have.
pub(crate) fn ids() -> impl Iterator<Item = &'static str> {
    IDS.into_iter().chain(DROPS.map(|(id, ..)| id))
}

/// The worst first.
pub(crate) fn advice(status: &Status) -> Vec<Advice> {
    let mut all = Vec::new();
    let mut say = |id: &str, text: String, what_to_do: &str| {
        all.push(Advice {
            id: id.to_owned(),
            text,
            what_to_do: what_to_do.to_owned(),
        });
    };
    if let Some(problem) = &status.problem {
        say(
            "kernel_not_as_planned",
            format!("changes do not reach this node's kernel: {problem}"),
            "what is said there; the agent tries again by itself. What was in force stays. \
             `ripstop status --verify` lists what differs",
        );
    }
    api(status, &mut say);
    engine(&status.datapath, &mut say);
    nodes(status.nodes.as_deref().unwrap_or_default(), &mut say);
    dns(&status.dns, &status.lately, &mut say);
    tables(&status.datapath, &mut say);
    drops(&status.lately, &mut say);
    for range in &status.pod_ranges {
        if is_full(range.used as u64, range.available as u64) {
            say(
                "pod_addresses_used_up",
                format!(
                    "{} of {} addresses for pods of {} are used",
                    range.used, range.available, range.range
                ),
                "move pods to other nodes, or give nodes larger ranges \
                 (`--node-cidr-mask-size` of who allocates them); addresses of containers that \
                 are gone come back with the runtime's next GC",
            );
        }
    }
    repairs(&status.lately, &mut say);
    let ignored = match status.ignored.len() {
        0 => return all,
        1 => "a part of an object is ignored: the line \"ignored\"".to_owned(),
        parts => format!("{parts} parts of objects are ignored: the lines \"ignored\""),
    };
    say(
        "ignored",
        ignored,
        "change these objects; each has an Event that says the same (`kubectl describe`)",
    );
    all
}

fn is_full(used: u64, limit: u64) -> bool {
    limit > 0 && used * 100 >= limit * FULL
}

fn api(status: &Status, say: &mut impl FnMut(&str, String, &str)) {
    let refused = |error: &str| error.contains("Forbidden") || error.contains("Unauthorized");
    match (status.api.as_str(), status.synced) {
        ("away", _) if status.api_errors.values().any(|error| refused(error)) => say(
            "api_refuses",
            "the API server refuses this agent: the network stays as it was".to_owned(),
            "look at the agent's account: token, ClusterRole and its binding \
             (`ripstop install --print` has them)",
        ),
        ("away", true) => say(
            "api_away",
            "the API server is away: pods, services and names work as they were, changes and \
             new pods' policies wait"
                .to_owned(),
            "look whether this node reaches it (the errors are under \"API\"); nothing is to be \
             done here when it is back",
        ),
        ("away", false) => say(
            "api_away_since_start",
            "the API server is away, and was since this agent began: what the last agent left \
             in the kernel works on, new services are not known"
                .to_owned(),
            "look whether this node reaches it (the errors are under \"API\"), and \
             --api-server, which has to be an address that needs no service",
        ),
        (_, false) => say(
            "not_all_listed",
            "not every object of the API has been seen yet: this node works with what the last \
             agent left"
                .to_owned(),
            "wait; a list takes seconds. If it stays, look at the errors under \"API\"",
        ),
        _ => {}
    }
}

fn engine(engine: &Engine, say: &mut impl FnMut(&str, String, &str)) {
    if let Some(why) = engine.reason.strip_prefix("the kernel refuses eBPF: ") {
        say(
            "ebpf_refused",
            format!(
                "{} instead of eBPF, which the kernel refuses: everything works, with more time \
                 per packet ({why})",
                engine.mode
            ),
            "`ripstop preflight` says what is missing; --datapath nftables if this is to be so",
        );
    }
}

fn nodes(nodes: &[NodeView], say: &mut impl FnMut(&str, String, &str)) {
    let silent: Vec<&NodeView> = nodes.iter().filter(|n| n.answered_us.is_none()).collect();
    match silent[..] {
        [] => {}
        [node] => say(
            NODES_SILENT,
            format!(
                "node {} ({}) does not answer: its pods ({}) may be out of reach from here",
                node.name,
                node.address,
                node.ranges.join(", ")
            ),
            "look whether it is up (`kubectl get node`); if it is, whether something between \
             here and there drops ICMP echo or, across subnets, UDP 4789",
        ),
        _ if silent.len() == nodes.len() => say(
            NODES_SILENT,
            format!("none of {} other nodes answers", nodes.len()),
            "look at this node first: its uplink, its addresses, a firewall that drops ICMP echo",
        ),
        _ => say(
            NODES_SILENT,
            format!("{} of {} nodes do not answer", silent.len(), nodes.len()),
            "they are under \"nodes\": look what they have in common (zone, rack, subnet)",
        ),
    }
}

fn dns(dns: &Dns, lately: &Counters, say: &mut impl FnMut(&str, String, &str)) {
    let dead: Vec<&str> = dns
        .upstream
        .iter()
        .filter(|server| !server.healthy)
        .map(|server| server.server.as_str())
        .collect();
    let servers = dead.join(", ");
    if !dead.is_empty() && dead.len() == dns.upstream.len() {
        say(
            "upstream_dns_dead",
            format!(
                "no upstream DNS server answers ({servers}): names of the cluster work, of \
                 others only what was asked lately"
            ),
            "ask one from this node (`dig @SERVER example.com`); other servers by \
             --upstream-dns, or the node's resolv.conf and a restart of the agent",
        );
    } else if !dead.is_empty() {
        say(
            "upstream_dns_partly_dead",
            format!("upstream DNS servers do not answer: {servers}; others do"),
            "take them off --upstream-dns or the node's resolv.conf if they are gone for good",
        );
    }
    if !dns.known {
        say(
            "names_unknown",
            "the cluster's names are not known yet: questions for them fail for a moment \
             (SERVFAIL)"
                .to_owned(),
            "wait for the API server, or look why it is away",
        );
    }
    if !lately.limited.is_empty() {
        let clients: Vec<_> = lately.limited.keys().take(5).map(String::as_str).collect();
        say(
            "names_limited",
            format!(
                "within the last ten minutes these asked for more names than their part: {}",
                clients.join(", ")
            ),
            "look what these pods do; others are answered meanwhile",
        );
    }
}

/// Drops that mean that something is full, or somebody hostile: the reason, why,
/// and what to do.
const DROPS: [(&str, &str, &str); 9] = [
    (
        "connection_share",
        "pods have begun more connections than their share while the node's table filled up",
        "look what these pods do (`ripstop status` names them); others are not affected",
    ),
    (
        "flow_share",
        "somebody has begun more translated flows than one may have",
        "find the pod that floods (packets of its interface: `ip -s link` on the node); the \
         others are not affected",
    ),
    (
        "flow_state",
        "the table of translated flows took no more",
        "find who begins so many flows",
    ),
    (
        "ports_exhausted",
        "too many flows to one address and port have the node's ports",
        "find who begins so many, or spread them over more destinations",
    ),
    (
        "connections_full",
        "there was no room for connections that they began",
        "find the pod that floods or is flooded; its old connections go on",
    ),
    (
        "socket_state",
        "a socket's service could not be remembered",
        "look at the node's free memory",
    ),
    (
        "backend_missing",
        "tables are damaged",
        "`ripstop status --verify`, then send `ripstop status --bundle`",
    ),
    (
        "connections_evicted",
        "the node tracks too many connections, and forgets some",
        "find the pod that floods, or raise net.netfilter.nf_conntrack_max",
    ),
    (
        "spoofed",
        "pods sent them from addresses that are not theirs",
        "find that pod: it is broken, or hostile",
    ),
];

fn tables(engine: &Engine, say: &mut impl FnMut(&str, String, &str)) {
    for table in &engine.tables {
        if is_full(table.rows, table.limit) {
            say(
                "table_full",
                format!(
                    "table {} has {} of {} rows",
                    table.name, table.rows, table.limit
                ),
                match table.name.as_str() {
                    "connections" => {
                        "connections begin only where answers pass without a row: find who \
                         begins so many"
                    }
                    _ => {
                        "what does not fit is not in force and is said by name: fewer objects \
                         for this node, or the other engine (`ripstop datapath set`)"
                    }
                },
            );
        }
    }
}

fn drops(lately: &Counters, say: &mut impl FnMut(&str, String, &str)) {
    for (id, why, what_to_do) in DROPS {
        let dropped = match lately.drops.get(id) {
            None | Some(0) => continue,
            Some(1) => "a packet was".to_owned(),
            Some(count) => format!("{count} packets were"),
        };
        say(
            id,
            format!("{dropped} dropped within the last ten minutes: {why} ({id})"),
            what_to_do,
        );
    }
}

fn repairs(lately: &Counters, say: &mut impl FnMut(&str, String, &str)) {
    let repaired = match lately.repaired {
        0 => return,
        1 => "a row or rule was not as it should be and was".to_owned(),
        count => format!("{count} rows or rules were not as they should be and were"),
    };
    say(
        "repaired",
        format!("{repaired} repaired within the last ten minutes (the last under \"audits\")"),
        "find who else changes them: kube-proxy or another CNI plugin that still runs, a \
         firewall's reload, somebody by hand",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn healthy() -> Value {
        json!({
            "node": "node1", "version": "0", "pid": 1, "uptimeSeconds": 100,
            "api": "up", "apiErrors": {}, "synced": true,
            "datapath": {
                "mode": "ebpf", "reason": "the kernel takes eBPF", "adopted": false,
                "tables": [{"name": "frontends", "rows": 10, "limit": 100}],
                "drops": {"policy": 7, "no_backends": 3, "no_service": 1, "spoofed": 9},
            },
            "pods": 3, "adopted": [],
            "podRanges": [{"range": "10.244.1.0/24", "used": 3, "available": 253}],
            "policies": null,
            "nodes": [{"name": "node2", "address": "172.30.1.12", "ranges": ["10.244.2.0/24"],
                       "answeredUs": 100}],
            "names": 10,
            "dns": {
                "known": true, "questions": 0, "bySource": [], "bySort": [], "latencies": [],
                "latencyMicros": [0, 0],
                "upstream": [{"server": "9.9.9.9", "healthy": true, "asked": 3, "failed": 0}],
                "cached": 0, "underWay": 0, "clients": {}, "limited": {"default/once": 1},
            },
            "audits": {"runs": 3, "repaired": 2, "last": ["frontend x"]},
            "lately": {"drops": {"policy": 7}, "limited": {}, "repaired": 0},
            "ignored": [], "ignoredTotal": {}, "problem": null,
        })
    }

    fn said(change: impl FnOnce(&mut Value)) -> Vec<Advice> {
        let mut status = healthy();
        change(&mut status);
        let status: Status = serde_json::from_value(status).unwrap();
        advice(&status)
    }

    fn ignored(object: &str) -> Value {
        let object = format!("Service {object}");
        json!({"object": object, "reason": "conflict", "message": "taken"})
    }

    #[test]
    fn who_is_healthy_gets_no_advice() {
        assert_eq!(said(|_| {}), []);
    }

    #[test]
    fn each_fault_says_what_is_degraded_and_what_to_do() {
        type Change = fn(&mut Value);
        let faults: [(Change, &str, &str, &str); 19] = [
            (
                |s| s["problem"] = "table frontends is full".into(),
                "kernel_not_as_planned",
                "changes do not reach this node's kernel: table frontends is full",
                "ripstop status --verify",
            ),
            (
                |s| (s["api"], s["apiErrors"]) = ("away".into(), json!({"Service": "refused"})),
                "api_away",
                "the API server is away: pods, services and names work as they were",
                "whether this node reaches it",
            ),
            (
                |s| {
                    (s["api"], s["synced"]) = ("away".into(), false.into());
                    s["apiErrors"] = json!({"Service": "refused"});
                },
                "api_away_since_start",
                "was since this agent began",
                "--api-server",
            ),
            (
                |s| {
                    s["api"] = "away".into();
                    s["apiErrors"] = json!({"Service": "services is Forbidden"});
                },
                "api_refuses",
                "refuses this agent",
                "ClusterRole",
            ),
            (
                |s| s["synced"] = false.into(),
                "not_all_listed",
                "not every object",
                "wait",
            ),
            (
                |s| s["datapath"]["reason"] = "the kernel refuses eBPF: no CAP_BPF".into(),
                "ebpf_refused",
                "instead of eBPF, which the kernel refuses",
                "ripstop preflight",
            ),
            (
                |s| s["nodes"][0]["answeredUs"] = Value::Null,
                "nodes_silent",
                "node node2 (172.30.1.12) does not answer: its pods (10.244.2.0/24)",
                "kubectl get node",
            ),
            (
                |s| s["dns"]["upstream"][0]["healthy"] = false.into(),
                "upstream_dns_dead",
                "no upstream DNS server answers (9.9.9.9)",
                "--upstream-dns",
            ),
            (
                |s| {
                    let dead =
                        json!({"server": "8.8.8.8", "healthy": false, "asked": 3, "failed": 3});
                    s["dns"]["upstream"].as_array_mut().unwrap().push(dead);
                },
                "upstream_dns_partly_dead",
                "upstream DNS servers do not answer: 8.8.8.8; others do",
                "--upstream-dns",
            ),
            (
                |s| s["dns"]["known"] = false.into(),
                "names_unknown",
                "names are not known yet",
                "wait for the API server",
            ),
            (
                |s| s["lately"]["limited"] = json!({"default/loud": 4}),
                "names_limited",
                "within the last ten minutes these asked for more names than their part: \
                 default/loud",
                "what these pods do",
            ),
            (
                |s| s["datapath"]["tables"][0]["rows"] = 90.into(),
                "table_full",
                "table frontends has 90 of 100 rows",
                "not in force",
            ),
            (
                |s| s["lately"]["drops"]["flow_share"] = 1.into(),
                "flow_share",
                "a packet was dropped within the last ten minutes: somebody",
                "find the pod that floods",
            ),
            (
                |s| s["lately"]["drops"]["spoofed"] = 5.into(),
                "spoofed",
                "5 packets were dropped within the last ten minutes: pods",
                "broken, or hostile",
            ),
            (
                |s| s["podRanges"][0]["used"] = 250.into(),
                "pod_addresses_used_up",
                "250 of 253 addresses",
                "larger ranges",
            ),
            (
                |s| s["lately"]["repaired"] = 1.into(),
                "repaired",
                "a row or rule was not as it should be and was repaired within the last ten",
                "who else changes them",
            ),
            (
                |s| s["lately"]["repaired"] = 2.into(),
                "repaired",
                "2 rows or rules were not as they should be and were repaired within the last",
                "who else changes them",
            ),
            (
                |s| s["ignored"] = json!([ignored("a/b")]),
                "ignored",
                "a part of an object is ignored",
                "kubectl describe",
            ),
            (
                |s| s["ignored"] = json!([ignored("a/b"), ignored("a/c")]),
                "ignored",
                "2 parts of objects are ignored",
                "kubectl describe",
            ),
        ];
        for (change, id, text, what_to_do) in faults {
            let said = said(change);
            let [advice] = &said[..] else {
                panic!("{text}: {said:#?}")
            };
            assert_eq!(advice.id, id);
            assert!(ids().any(|known| known == id), "{id}");
            assert!(advice.text.contains(text), "{advice:?}");
            assert!(advice.what_to_do.contains(what_to_do), "{advice:?}");
        }
    }

    #[test]
    fn an_id_is_of_one_reason() {
        let all: Vec<_> = ids().collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(all.len(), different.len());
    }
}
