//! Online Boutique under its own published network policies.

use ripstop_tests::{Lab, published};

use crate::ENGINES;
use crate::objects::world;
use crate::probes::{Kind, Probe, Reach, matrix};
use crate::stage;

#[test]
fn online_boutique_reaches_what_its_policies_allow() {
    let (Some(application), Some(policies)) = (
        published("online-boutique/kubernetes-manifests.yaml"),
        published("online-boutique/network-policies.yaml"),
    ) else {
        return;
    };
    let policies = std::fs::read_to_string(policies).unwrap();
    let number = policies.matches("\nkind: NetworkPolicy").count();
    for engine in ENGINES {
        let lab = Lab::up(&["--nodes", "3", "--datapath", engine]);
        // Before there is a pod: each begins under them, and becomes Ready.
        stage::apply(&lab, &policies, (number, 0));
        lab.must("apply", &["-f", application.to_str().unwrap()]);
        lab.kubectl(&[
            "wait",
            "deployment",
            "--all",
            "--for=condition=Available",
            "--timeout=180s",
        ]);
        let world = world(&lab);
        let pods = world.pods.keys();
        let pods = pods.map(|key| stage::pod(&lab, &key.namespace, &key.name));
        let pods: Vec<_> = pods.collect();
        assert_eq!(pods.len(), 12);
        let (mut open, mut wrong) = (0, Vec::new());
        // Stand-ins answer at the ports that their pods declare.
        for server in &pods {
            let object = lab.get(&["pod", server.name.strip_prefix("default/").unwrap()]);
            let containers = object["spec"]["containers"].as_array().unwrap().iter();
            let ports =
                containers.flat_map(|one| one["ports"].as_array().cloned().unwrap_or_default());
            let ports: Vec<_> = ports
                .map(|port| u16::try_from(port["containerPort"].as_u64().unwrap()).unwrap())
                .collect();
            let clients: Vec<_> = pods.iter().collect();
            let open_to = |probe: &Probe| world.allows(probe).is_ok();
            let found = matrix(&clients, &[server], &ports, &[Kind::Tcp], &open_to);
            for (probe, reach) in found {
                let said = world.allows(&probe);
                let expected = match said {
                    Ok(()) => Reach::Open,
                    Err(_) => Reach::Silent,
                };
                open += usize::from(reach == Reach::Open);
                if reach != expected {
                    wrong.push(format!(
                        "{probe:?} to {}: {reach:?}, but {said:?}",
                        server.name
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{engine}:\n{}", wrong.join("\n"));
        eprintln!("{engine}: {open} connections of Online Boutique are allowed");
    }
}
