//! What of a status is not as it should be, and what to do about it: for who was
//! called at night.

use crate::agent::{Audits, Dns, Engine, NodeView, Status};

/// Something that does not work as it should.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Advice {
    /// What is degraded, and what still works.
    pub(crate) what: String,
    /// What to do.
    pub(crate) do_this: String,
}

/// Of what can be counted in hundreds: from here on it is said.
const FULL: u64 = 90;

/// The worst first.
pub(crate) fn advice(status: &Status) -> Vec<Advice> {
    let mut all = Vec::new();
    let mut say = |what: String, do_this: &str| {
        all.push(Advice {
            what,
            do_this: do_this.to_owned(),
        });
    };
    if let Some(problem) = &status.problem {
        say(
            format!("changes do not reach this node's kernel: {problem}"),
            "what is said there; the agent tries again by itself. What was in force stays. \
             `ripstop status --verify` lists what differs",
        );
    }
    api(status, &mut say);
    engine(&status.datapath, &mut say);
    nodes(status.nodes.as_deref().unwrap_or_default(), &mut say);
    dns(&status.dns, &mut say);
    tables(&status.datapath, &mut say);
    for range in &status.pod_ranges {
        if is_full(range.used as u64, range.available as u64) {
            say(
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
    audits(&status.audits, &mut say);
    if !status.ignored.is_empty() {
        let objects = status.ignored.len();
        say(
            format!("{objects} parts of objects are ignored: the lines \"ignored\""),
            "change these objects; each has an Event that says the same \
             (`kubectl describe`)",
        );
    }
    all
}

fn is_full(used: u64, limit: u64) -> bool {
    limit > 0 && used * 100 >= limit * FULL
}

fn api(status: &Status, say: &mut impl FnMut(String, &str)) {
    let refused = |error: &str| error.contains("Forbidden") || error.contains("Unauthorized");
    match (status.api.as_str(), status.synced) {
        ("away", _) if status.api_errors.values().any(|error| refused(error)) => say(
            "the API server refuses this agent: the network stays as it was".to_owned(),
            "look at the agent's account: token, ClusterRole and its binding \
             (`ripstop install --print` has them)",
        ),
        ("away", true) => say(
            "the API server is away: pods, services and names work as they were, changes and \
             new pods' policies wait"
                .to_owned(),
            "look whether this node reaches it (the errors are under \"API\"); nothing is to be \
             done here when it is back",
        ),
        ("away", false) => say(
            "the API server is away, and was since this agent began: what the last agent left \
             in the kernel works on, new services are not known"
                .to_owned(),
            "look whether this node reaches it (the errors are under \"API\"), and \
             --api-server, which has to be an address that needs no service",
        ),
        (_, false) => say(
            "not every object of the API has been seen yet: this node works with what the last \
             agent left"
                .to_owned(),
            "wait; a list takes seconds. If it stays, look at the errors under \"API\"",
        ),
        _ => {}
    }
}

fn engine(engine: &Engine, say: &mut impl FnMut(String, &str)) {
    if let Some(why) = engine.reason.strip_prefix("the kernel refuses eBPF: ") {
        say(
            format!(
                "{} instead of eBPF, which the kernel refuses: everything works, with more time \
                 per packet ({why})",
                engine.mode
            ),
            "`ripstop preflight` says what is missing; --datapath nftables if this is to be so",
        );
    }
}

fn nodes(nodes: &[NodeView], say: &mut impl FnMut(String, &str)) {
    let silent: Vec<&NodeView> = nodes.iter().filter(|n| n.answered_us.is_none()).collect();
    match silent[..] {
        [] => {}
        [node] => say(
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
            format!("none of {} other nodes answers", nodes.len()),
            "look at this node first: its uplink, its addresses, a firewall that drops ICMP echo",
        ),
        _ => say(
            format!("{} of {} nodes do not answer", silent.len(), nodes.len()),
            "they are under \"nodes\": look what they have in common (zone, rack, subnet)",
        ),
    }
}

fn dns(dns: &Dns, say: &mut impl FnMut(String, &str)) {
    let dead: Vec<&str> = dns
        .upstream
        .iter()
        .filter(|server| !server.healthy)
        .map(|server| server.server.as_str())
        .collect();
    let servers = dead.join(", ");
    if !dead.is_empty() && dead.len() == dns.upstream.len() {
        say(
            format!(
                "no upstream DNS server answers ({servers}): names of the cluster work, of \
                 others only what was asked lately"
            ),
            "ask one from this node (`dig @SERVER example.com`); other servers by \
             --upstream-dns, or the node's resolv.conf and a restart of the agent",
        );
    } else if !dead.is_empty() {
        say(
            format!("upstream DNS servers do not answer: {servers}; others do"),
            "take them off --upstream-dns or the node's resolv.conf if they are gone for good",
        );
    }
    if !dns.known {
        say(
            "the cluster's names are not known yet: questions for them fail for a moment \
             (SERVFAIL)"
                .to_owned(),
            "wait for the API server, or look why it is away",
        );
    }
    if !dns.limited.is_empty() {
        let clients: Vec<_> = dns.limited.keys().take(5).map(String::as_str).collect();
        say(
            format!("asked more names than their part: {}", clients.join(", ")),
            "look what these pods do; others are answered meanwhile",
        );
    }
}

/// Drops that mean that something is full, what that means, and what to do.
const DROPS: [(&str, &str, &str); 9] = [
    (
        "connection_share",
        "of pods that have begun more connections than their share while the node's table filled \
         up",
        "look what these pods do (`ripstop status` names them); others are not affected",
    ),
    (
        "flow_share",
        "of pods that have begun more translated flows than one may have",
        "find the pod that floods (packets of its interface: `ip -s link` on the node); the \
         others are not affected",
    ),
    (
        "flow_state",
        "because the table of translated flows took no more",
        "find who begins so many flows",
    ),
    (
        "ports_exhausted",
        "because too many flows to one address and port have the node's ports",
        "find who begins so many, or spread them over more destinations",
    ),
    (
        "connections_full",
        "that began connections of pods whose share of the table was used up",
        "find the pod that floods or is flooded; its old connections go on",
    ),
    (
        "socket_state",
        "because a socket's service could not be remembered",
        "look at the node's free memory",
    ),
    (
        "backend_missing",
        "because tables are damaged",
        "`ripstop status --verify`, then send `ripstop status --bundle`",
    ),
    (
        "connections_evicted",
        "or connections forgotten, because the node tracks too many",
        "find the pod that floods, or raise net.netfilter.nf_conntrack_max",
    ),
    (
        "spoofed",
        "that pods sent with addresses that are not theirs",
        "find that pod: it is broken, or hostile",
    ),
];

fn tables(engine: &Engine, say: &mut impl FnMut(String, &str)) {
    for table in &engine.tables {
        if is_full(table.rows, table.limit) {
            say(
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
    for (name, which, do_this) in DROPS {
        let count = engine.drops.get(name).copied().unwrap_or(0);
        if count > 0 {
            say(
                format!("{count} packets dropped since the start {which} ({name})"),
                do_this,
            );
        }
    }
}

fn audits(audits: &Audits, say: &mut impl FnMut(String, &str)) {
    if audits.repaired > 0 {
        say(
            format!(
                "{} rows or rules were not as they should be and were repaired (the last under \
                 \"audits\")",
                audits.repaired
            ),
            "find who else changes them: kube-proxy or another CNI plugin that still runs, a \
             firewall's reload, somebody by hand",
        );
    }
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
                "drops": {"policy": 7, "no_backends": 3, "no_service": 1},
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
                "cached": 0, "underWay": 0, "clients": {}, "limited": {},
            },
            "audits": {"runs": 3, "repaired": 0, "last": []},
            "ignored": [], "ignoredTotal": {}, "problem": null,
        })
    }

    fn said(change: impl FnOnce(&mut Value)) -> Vec<Advice> {
        let mut status = healthy();
        change(&mut status);
        let status: Status = serde_json::from_value(status).unwrap();
        advice(&status)
    }

    #[test]
    fn who_is_healthy_gets_no_advice() {
        assert_eq!(said(|_| {}), []);
    }

    #[test]
    fn each_fault_says_what_is_degraded_and_what_to_do() {
        type Change = fn(&mut Value);
        let faults: [(Change, &str, &str); 14] = [
            (
                |s| (s["api"], s["apiErrors"]) = ("away".into(), json!({"Service": "refused"})),
                "the API server is away: pods, services and names work as they were",
                "whether this node reaches it",
            ),
            (
                |s| {
                    (s["api"], s["synced"]) = ("away".into(), false.into());
                    s["apiErrors"] = json!({"Service": "refused"});
                },
                "was since this agent began",
                "--api-server",
            ),
            (
                |s| {
                    s["api"] = "away".into();
                    s["apiErrors"] = json!({"Service": "services is Forbidden"});
                },
                "refuses this agent",
                "ClusterRole",
            ),
            (|s| s["synced"] = false.into(), "not every object", "wait"),
            (
                |s| s["datapath"]["reason"] = "the kernel refuses eBPF: no CAP_BPF".into(),
                "instead of eBPF, which the kernel refuses",
                "ripstop preflight",
            ),
            (
                |s| s["nodes"][0]["answeredUs"] = Value::Null,
                "node node2 (172.30.1.12) does not answer: its pods (10.244.2.0/24)",
                "kubectl get node",
            ),
            (
                |s| s["dns"]["upstream"][0]["healthy"] = false.into(),
                "no upstream DNS server answers (9.9.9.9)",
                "--upstream-dns",
            ),
            (
                |s| s["datapath"]["tables"][0]["rows"] = 90.into(),
                "table frontends has 90 of 100 rows",
                "not in force",
            ),
            (
                |s| s["datapath"]["drops"]["flow_share"] = 5.into(),
                "5 packets dropped",
                "find the pod that floods",
            ),
            (
                |s| s["podRanges"][0]["used"] = 250.into(),
                "250 of 253 addresses",
                "larger ranges",
            ),
            (
                |s| s["audits"] = json!({"runs": 1, "repaired": 2, "last": ["frontend x"]}),
                "2 rows or rules",
                "who else changes them",
            ),
            (
                |s| {
                    s["ignored"] = json!([
                        {"object": "Service a/b", "reason": "conflict", "message": "taken"}
                    ]);
                },
                "1 parts of objects are ignored",
                "kubectl describe",
            ),
            (
                |s| s["problem"] = "table frontends is full".into(),
                "changes do not reach this node's kernel: table frontends is full",
                "ripstop status --verify",
            ),
            (
                |s| s["dns"]["limited"] = json!({"default/loud": 4}),
                "default/loud",
                "what these pods do",
            ),
        ];
        for (change, what, do_this) in faults {
            let said = said(change);
            let [advice] = &said[..] else {
                panic!("{what}: {said:#?}")
            };
            assert!(advice.what.contains(what), "{advice:?}");
            assert!(advice.do_this.contains(do_this), "{advice:?}");
        }
    }
}
