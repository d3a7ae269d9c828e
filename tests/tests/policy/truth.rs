//! The truth table in a lab: random policies, and real connections beside what
//! the reference evaluator says of them.

use std::fmt::Write;

use ripstop_tests::{Lab, write_manifest};
use serde_json::{Value, json};

use crate::ENGINES;
use crate::objects::world;
use crate::probes::{Kind, Probe, Reach, Servers, matrix};
use crate::stage::{self, Place};

const PORTS: [u16; 4] = [80, 81, 443, 8080];
/// Pods by namespace, name, node, labels; `http` is another port in each.
const PODS: [(&str, &str, &str, &str, u16); 7] = [
    ("red", "a1", "node1", "app: a, tier: front", 80),
    ("red", "b1", "node1", "app: b, tier: front", 81),
    ("red", "a2", "node2", "app: a, tier: back", 8080),
    ("blue", "a1", "node1", "app: a, tier: back", 443),
    ("blue", "b2", "node2", "app: b", 80),
    ("blue", "c2", "node2", "app: c, tier: front", 81),
    ("plain", "x1", "node1", "app: a", 80),
];
/// Sets of policies for each engine, unless RIPSTOP_POLICY_ROUNDS says how many.
const ROUNDS: u64 = 12;

/// Counterexamples of the past, and the rules that each protects.
const CASES: [(&str, &str); 4] = [
    (
        "named port, another in each pod",
        include_str!("cases/named-port.yaml"),
    ),
    ("a block's exceptions", include_str!("cases/except.yaml")),
    (
        "egress and ingress at once",
        include_str!("cases/both-ends.yaml"),
    ),
    (
        "end port and protocols",
        include_str!("cases/end-port.yaml"),
    ),
];

#[test]
fn connections_are_as_the_reference_says() {
    for engine in ENGINES {
        let table = Table::new(engine);
        table.check("no policy", "");
        for (name, yaml) in CASES {
            table.check(name, yaml);
        }
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let rounds = number("RIPSTOP_POLICY_ROUNDS").unwrap_or(ROUNDS);
        let first = number("RIPSTOP_POLICY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        for seed in first..first + rounds {
            let policies = Random(seed).policies(&table.addresses());
            table.check_random(seed, &policies);
        }
        eprintln!(
            "{engine}: {} sets of policies, {} connections tried, {} of them allowed",
            CASES.len() as u64 + rounds,
            table.tried.get(),
            table.allowed.get()
        );
    }
}

/// A lab with a server on each port of each pod.
struct Table {
    engine: &'static str,
    lab: Lab,
    places: Vec<Place>,
    _servers: Servers,
    tried: std::cell::Cell<usize>,
    allowed: std::cell::Cell<usize>,
}

impl Table {
    fn new(engine: &'static str) -> Self {
        let mut yaml = String::new();
        for (name, team) in [("red", "one"), ("blue", "two")] {
            // Writing to a string cannot fail.
            let _ = writeln!(
                yaml,
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {team}}}}}\n---"
            );
        }
        let _ = writeln!(
            yaml,
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: plain}}\n---"
        );
        for (namespace, name, node, labels, http) in PODS {
            let _ = writeln!(
                yaml,
                "apiVersion: v1\nkind: Pod\n\
                 metadata: {{namespace: {namespace}, name: {name}, labels: {{{labels}}}}}\n\
                 spec:\n  nodeName: {node}\n  containers:\n  - {{name: main, image: client, \
                 command: [sleep, infinity], ports: [{{name: http, containerPort: {http}}}]}}\n---"
            );
        }
        let manifest = write_manifest(&yaml);
        let lab = Lab::up(&[
            "--nodes",
            "2",
            "--ip-family",
            "dual",
            "--datapath",
            engine,
            // An answer tells a denied connection from a slow one.
            "--policy-deny",
            "reject",
            "-f",
            manifest.path().to_str().unwrap(),
        ]);
        let pods = PODS
            .iter()
            .map(|(namespace, name, ..)| stage::pod(&lab, namespace, name));
        let mut places: Vec<_> = pods.collect();
        places.push(stage::node(&lab, "node1"));
        places.push(stage::outside(&lab));
        let all: Vec<_> = places.iter().collect();
        let servers = Servers::start(&all, &PORTS);
        Self {
            engine,
            lab,
            _servers: servers,
            places,
            tried: 0.into(),
            allowed: 0.into(),
        }
    }

    fn addresses(&self) -> Vec<std::net::IpAddr> {
        let all = self.places.iter().flat_map(|place| &place.addresses);
        all.copied().collect()
    }

    fn check(&self, name: &str, yaml: &str) {
        let policies = yaml.matches("kind: NetworkPolicy").count();
        let wrong = self.wrong(yaml, policies);
        assert!(
            wrong.is_empty(),
            "{}: {name}:\n{}",
            self.engine,
            wrong.join("\n")
        );
    }

    fn check_random(&self, seed: u64, policies: &[Value]) {
        let list = |policies: &[Value]| {
            serde_json::to_string_pretty(&json!({
                "apiVersion": "v1", "kind": "List", "items": policies,
            }))
            .unwrap()
        };
        let wrong = self.wrong(&list(policies), policies.len());
        if wrong.is_empty() {
            return;
        }
        // As few of them as show it.
        let mut few = policies.to_vec();
        let mut said = wrong;
        let mut at = 0;
        while at < few.len() {
            let mut fewer = few.clone();
            fewer.remove(at);
            let still = self.wrong(&list(&fewer), fewer.len());
            if still.is_empty() {
                at += 1;
            } else {
                (few, said) = (fewer, still);
            }
        }
        panic!(
            "{}, seed {seed}: make it a case:\n{}\n{}",
            self.engine,
            list(&few),
            said.join("\n")
        );
    }

    /// Puts policies in place, tries everything, and takes them away.
    fn wrong(&self, yaml: &str, policies: usize) -> Vec<String> {
        if policies > 0 {
            stage::apply(&self.lab, yaml, (policies, 0));
        }
        let world = world(&self.lab);
        let all: Vec<_> = self.places.iter().collect();
        let pods = &all[..PODS.len()];
        let kinds = [Kind::Tcp, Kind::Udp];
        // From outside there is no way to pods' own addresses.
        let inside = &all[..=PODS.len()];
        let open = |probe: &Probe| world.allows(probe).is_ok();
        let mut found = matrix(inside, pods, &PORTS, &kinds, &open);
        found.extend(matrix(pods, &all[PODS.len()..], &PORTS, &kinds, &open));
        let mut wrong = Vec::new();
        for (probe, reach) in &found {
            self.tried.set(self.tried.get() + 1);
            let said = world.allows(probe);
            self.allowed
                .set(self.allowed.get() + usize::from(said.is_ok()));
            // The kernel sends few ICMP errors a second: datagrams may get none.
            let expected = match (&said, probe.kind) {
                (Ok(()), _) => *reach == Reach::Open,
                (Err(_), Kind::Tcp) => *reach == Reach::Refused,
                (Err(_), Kind::Udp | Kind::Sctp) => *reach != Reach::Open,
            };
            if !expected {
                wrong.push(self.sentence(probe, *reach, &said));
            }
        }
        self.lab
            .kubectl(&["delete", "networkpolicies", "-A", "--all"]);
        stage::planned(&self.lab, (0, 0));
        wrong
    }

    fn sentence(&self, probe: &Probe, reach: Reach, said: &Result<(), String>) -> String {
        let name = |address| {
            let place = self
                .places
                .iter()
                .find(|one| one.addresses.contains(&address));
            place.map_or("nobody", |place| place.name.as_str())
        };
        let said = match said {
            Ok(()) => "allowed".to_owned(),
            Err(by) => format!("denied by {by}"),
        };
        format!(
            "{} to {} {:?} {}: {reach:?}, but {said}",
            name(probe.client),
            name(probe.server.ip()),
            probe.kind,
            probe.server,
        )
    }
}

/// SplitMix64: the same numbers for the same seed, for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One to five policies.
    fn policies(&mut self, addresses: &[std::net::IpAddr]) -> Vec<Value> {
        (0..=self.below(5))
            .map(|i| self.policy(i, addresses))
            .collect()
    }

    fn policy(&mut self, number: u64, addresses: &[std::net::IpAddr]) -> Value {
        let types = *self.pick(&[&["Ingress"][..], &["Egress"], &["Ingress", "Egress"]]);
        let mut spec = json!({"podSelector": self.selector(), "policyTypes": types});
        for kind in types {
            let rules = (0..self.below(3)).map(|_| self.rule(kind, addresses));
            spec[kind.to_lowercase()] = rules.collect();
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": self.pick(&["red", "blue"]), "name": format!("p{number}")},
            "spec": spec,
        })
    }

    fn rule(&mut self, kind: &str, addresses: &[std::net::IpAddr]) -> Value {
        let peers = if kind == "Ingress" { "from" } else { "to" };
        let mut rule = json!({});
        if self.chance(80) {
            rule[peers] = (0..=self.below(2)).map(|_| self.peer(addresses)).collect();
        }
        if self.chance(60) {
            rule["ports"] = (0..=self.below(2)).map(|_| self.port()).collect();
        }
        rule
    }

    fn peer(&mut self, addresses: &[std::net::IpAddr]) -> Value {
        match self.below(4) {
            0 => json!({"podSelector": self.selector()}),
            1 => json!({"namespaceSelector": self.namespaces()}),
            2 => json!({"namespaceSelector": self.namespaces(), "podSelector": self.selector()}),
            _ => json!({"ipBlock": self.block(addresses)}),
        }
    }

    fn namespaces(&mut self) -> Value {
        self.pick(&[
            json!({}),
            json!({"matchLabels": {"team": "one"}}),
            json!({"matchLabels": {"kubernetes.io/metadata.name": "plain"}}),
            json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]}),
            json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["two"]}]}),
        ])
        .clone()
    }

    fn selector(&mut self) -> Value {
        self.pick(&[
            json!({}),
            json!({"matchLabels": {"app": "a"}}),
            json!({"matchLabels": {"app": "b"}}),
            json!({"matchLabels": {"app": "a", "tier": "back"}}),
            json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}),
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["b", "c"]}]}),
        ])
        .clone()
    }

    /// Around an address that is there, with an exception or without.
    fn block(&mut self, addresses: &[std::net::IpAddr]) -> Value {
        let around = *self.pick(addresses);
        let lengths: &[u8] = match around {
            std::net::IpAddr::V4(_) => &[0, 8, 16, 24, 30, 32],
            std::net::IpAddr::V6(_) => &[0, 16, 48, 64, 126, 128],
        };
        let net = |address, length| ipnet::IpNet::new(address, length).unwrap().trunc();
        let length = *self.pick(lengths);
        let block = net(around, length);
        let inside: Vec<_> = addresses
            .iter()
            .filter(|one| block.contains(*one))
            .collect();
        let longer: Vec<_> = lengths.iter().filter(|one| **one > length).collect();
        if longer.is_empty() || self.chance(40) {
            return json!({"cidr": block.to_string()});
        }
        let except = net(**self.pick(&inside), **self.pick(&longer));
        json!({"cidr": block.to_string(), "except": [except.to_string()]})
    }

    fn port(&mut self) -> Value {
        self.pick(&[
            json!({"port": 80}),
            json!({"port": "http"}),
            json!({"port": 80, "endPort": 443}),
            json!({"port": 81, "endPort": 8080, "protocol": "UDP"}),
            json!({"port": 8080, "protocol": "UDP"}),
            json!({"protocol": "TCP"}),
            json!({"protocol": "SCTP"}),
        ])
        .clone()
    }
}
