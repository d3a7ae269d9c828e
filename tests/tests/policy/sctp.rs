//! SCTP under policies, where the kernel has it.

use std::net::SocketAddr;
use std::time::Duration;

use ripstop_tests::eventually;

use crate::ENGINES;
use crate::probes::{Kind, Reach, has_sctp};
use crate::stage::Place;
use crate::town::{FROM_CLIENT, Town, echoes, ingress};

/// Of a policy that lets the client in at these ports.
fn at(ports: &str) -> String {
    ingress(&format!(
        "{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}], ports: [{ports}]}}"
    ))
}

const EGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{ports: [{port: 81, protocol: SCTP}]}]
";

fn expect(town: &Town, kind: Kind, from: &Place, port: u16, expected: Reach) {
    for server in [&town.near, &town.far] {
        for address in &server.addresses {
            let to = SocketAddr::new(*address, port);
            let found = from.reach(kind, to, expected == Reach::Open);
            let (engine, name) = (town.engine, &from.name);
            assert_eq!(found, expected, "{engine}: {name} to {to} {kind:?}");
        }
    }
}

#[test]
fn sctp_is_a_protocol_of_its_own() {
    if !has_sctp() {
        println!(
            "skipped: this kernel has no SCTP (CONFIG_IP_SCTP); `cargo xtask sctp` boots one that has"
        );
        return;
    }
    for engine in ENGINES {
        let town = Town::new(engine, &["--dual-stack"]);
        let is = |kind, port, expected| expect(&town, kind, &town.client, port, expected);
        is(Kind::Sctp, 80, Reach::Open);

        // Nobody, and the client alone, whatever it asks for.
        town.policy(&ingress(""));
        is(Kind::Sctp, 80, Reach::Silent);
        town.policy(&ingress(FROM_CLIENT));
        is(Kind::Sctp, 80, Reach::Open);
        expect(&town, Kind::Sctp, &town.outside, 80, Reach::Silent);

        // By protocol and port: neither is enough.
        town.policy(&at("{port: 80, protocol: SCTP}"));
        is(Kind::Sctp, 80, Reach::Open);
        is(Kind::Sctp, 81, Reach::Silent);
        is(Kind::Tcp, 80, Reach::Silent);
        town.policy(&at("{port: 80}, {port: 80, protocol: UDP}"));
        is(Kind::Sctp, 80, Reach::Silent);
        is(Kind::Tcp, 80, Reach::Open);
        town.policy(&at("{protocol: SCTP}"));
        is(Kind::Sctp, 81, Reach::Open);
        is(Kind::Tcp, 81, Reach::Silent);

        // By a range of ports.
        town.policy(&at("{port: 70, endPort: 80, protocol: SCTP}"));
        is(Kind::Sctp, 80, Reach::Open);
        is(Kind::Sctp, 81, Reach::Silent);

        // An association goes on for as long as it is allowed.
        let to = |server: &Place| SocketAddr::new(server.addresses[0], 80);
        let kept = [&town.near, &town.far].map(|server| {
            let begun = town.client.associate(to(server), Duration::from_secs(5));
            let stream = begun.expect("an association");
            stream
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            stream
        });
        assert!(kept.iter().all(echoes), "{engine}");
        town.policy(&at("{port: 81, protocol: SCTP}"));
        assert!(!kept.iter().any(echoes), "{engine}");
        town.policy(&at("{port: 80, protocol: SCTP}"));
        for stream in &kept {
            eventually("it goes on", || echoes(stream).then_some(()));
        }

        // And on the other side of it.
        town.no_policy();
        town.policy(EGRESS);
        is(Kind::Sctp, 81, Reach::Open);
        is(Kind::Sctp, 80, Reach::Silent);
        println!("{engine}: SCTP is allowed and denied as policies say");
    }
}
