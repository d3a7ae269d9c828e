//! Network policies on a real cluster.

use crate::world::{World, url};

const ONLY_ITSELF: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec:
  podSelector: {matchLabels: {app: everywhere}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {role: friend}}}]
    ports: [{port: 8080}]
";

#[test]
fn a_policy_lets_in_whom_it_names_and_nobody_else() {
    let Some(world) = World::up() else { return };
    let (client, server) = (&world.asker, &world.pods[0]);
    let ask_all = |answers: bool| {
        for address in &server.addresses {
            let url = url(address, 8080);
            world
                .cluster
                .eventually(&format!("{url} answers: {answers}"), || {
                    let said = world.ask(client, &url);
                    match said.ok == answers {
                        true => Ok(()),
                        false => Err(format!("{}{}", said.stdout, said.stderr)),
                    }
                });
        }
    };
    ask_all(true);
    world.cluster.apply(ONLY_ITSELF);
    ask_all(false);
    world
        .cluster
        .kubectl(&["label", "pod", &client.name, "role=friend"]);
    ask_all(true);
    world
        .cluster
        .kubectl(&["label", "pod", &client.name, "role-"]);
    ask_all(false);
    world
        .cluster
        .kubectl(&["delete", "networkpolicy", "closed"]);
    ask_all(true);
}

#[test]
fn a_pod_that_may_only_ask_for_names_reaches_nothing_else() {
    let Some(world) = World::up() else { return };
    let client = &world.asker;
    world.must_ask(client, "http://web/");
    world.cluster.apply(
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: names}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
",
    );
    world.cluster.eventually("nothing is reached", || {
        let said = world.ask(client, "http://web/");
        if said.ok { Err(said.stdout) } else { Ok(()) }
    });
    let name = format!("web.{}.svc.cluster.local.", world.cluster.namespace());
    let said = world.cluster.sh(&client.name, &format!("nslookup {name}"));
    assert!(said.ok, "{}{}", said.stdout, said.stderr);
    world.cluster.kubectl(&["delete", "networkpolicy", "names"]);
    world.must_ask(client, "http://web/");
}
