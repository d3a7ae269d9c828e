use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::super::state::Termination;
use super::*;

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn two(policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": policy,
        "initContainers": [
            {"name": "wait"},
            {"name": "side", "restartPolicy": "Always"},
        ],
        "containers": [{"name": "a"}, {"name": "b"}],
    }))
}

fn ready(pod: &Pod) -> PodState {
    let mut state = PodState::new(pod, Timestamp::UNIX_EPOCH);
    state.sandbox = Sandbox::Ready { ips: Vec::new() };
    state.init_allowed = true;
    state
}

fn begin(state: &mut PodState, name: &str) {
    let container = state.containers.get_mut(name).unwrap();
    container.begin("id".to_owned(), String::new(), Timestamp::UNIX_EPOCH);
    container.started = true;
    state.begun |= name.len() == 1;
}

fn end(state: &mut PodState, name: &str, exit_code: i32, now: Instant) {
    let termination = Termination {
        exit_code,
        reason: String::new(),
        message: None,
        started: Timestamp::UNIX_EPOCH,
        finished: Timestamp::UNIX_EPOCH,
        id: "id".to_owned(),
    };
    state
        .containers
        .get_mut(name)
        .unwrap()
        .end(termination, now);
}

fn start(names: &[&str]) -> Vec<Action> {
    names
        .iter()
        .map(|&name| Action::Start(name.to_owned()))
        .collect()
}

fn stop(names: &[&str]) -> Vec<Action> {
    names
        .iter()
        .map(|&name| Action::Stop(name.to_owned()))
        .collect()
}

#[test]
fn a_pod_from_nothing_to_running() {
    let now = Instant::now();
    let pod = two("Always");
    let mut state = PodState::new(&pod, Timestamp::UNIX_EPOCH);
    assert_eq!(decide(&pod, &state, now).actions, [Action::MakeSandbox]);

    state.sandbox = Sandbox::Ready { ips: Vec::new() };
    assert_eq!(decide(&pod, &state, now).actions, []);
    state.init_allowed = true;
    assert_eq!(decide(&pod, &state, now).actions, start(&["wait"]));
    begin(&mut state, "wait");
    assert_eq!(decide(&pod, &state, now).actions, []);
    end(&mut state, "wait", 0, now);
    assert_eq!(decide(&pod, &state, now).actions, start(&["side"]));
    begin(&mut state, "side");
    state.containers.get_mut("side").unwrap().started = false;
    assert_eq!(decide(&pod, &state, now).actions, []);
    state.containers.get_mut("side").unwrap().started = true;
    assert_eq!(decide(&pod, &state, now).actions, start(&["a", "b"]));
    begin(&mut state, "a");
    begin(&mut state, "b");
    assert_eq!(decide(&pod, &state, now), Decision::default());
}

#[test]
fn a_failed_sandbox_is_tried_again_later() {
    let now = Instant::now();
    let pod = two("Always");
    let mut state = PodState::new(&pod, Timestamp::UNIX_EPOCH);
    let at = now + Duration::from_secs(1);
    state.sandbox = Sandbox::Absent {
        problem: Some("full".into()),
        retry: Some(at),
        failures: 1,
    };
    assert_eq!(
        decide(&pod, &state, now),
        Decision {
            actions: vec![],
            wake: Some(at)
        }
    );
    assert_eq!(decide(&pod, &state, at).actions, [Action::MakeSandbox]);
}

#[test]
fn restarts_by_policy() {
    let now = Instant::now();
    for (policy, exit_code, expected) in [
        ("Always", 0, start(&["a"])),
        ("Always", 1, start(&["a"])),
        ("OnFailure", 1, start(&["a"])),
        ("OnFailure", 0, vec![]),
        ("Never", 1, vec![]),
    ] {
        let pod = pod(json!({
            "restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}],
        }));
        let mut state = ready(&pod);
        begin(&mut state, "a");
        begin(&mut state, "b");
        end(&mut state, "a", exit_code, now);
        assert_eq!(
            decide(&pod, &state, now).actions,
            expected,
            "{policy} {exit_code}"
        );
    }
}

#[test]
fn crash_loops_are_held_back() {
    let now = Instant::now();
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut state = ready(&pod);
    for _ in 0..2 {
        begin(&mut state, "a");
        end(&mut state, "a", 1, now);
    }
    let at = now + Duration::from_secs(10);
    let hold_back = Action::HoldBack("a".to_owned());
    assert_eq!(
        decide(&pod, &state, now),
        Decision {
            actions: vec![hold_back],
            wake: Some(at)
        }
    );
    state
        .containers
        .get_mut("a")
        .unwrap()
        .hold_back("later".to_owned());
    assert_eq!(
        decide(&pod, &state, now),
        Decision {
            actions: vec![],
            wake: Some(at)
        }
    );
    assert_eq!(decide(&pod, &state, at).actions, start(&["a"]));
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let now = Instant::now();
    for (policy, expected) in [
        ("Never", vec![Action::RemoveSandbox]),
        ("OnFailure", start(&["wait"])),
    ] {
        let pod = two(policy);
        let mut state = ready(&pod);
        begin(&mut state, "wait");
        end(&mut state, "wait", 1, now);
        assert_eq!(decide(&pod, &state, now).actions, expected, "{policy}");
    }
}

#[test]
fn a_job_that_is_done_gives_its_network_back() {
    let now = Instant::now();
    let pod = two("OnFailure");
    let mut state = ready(&pod);
    begin(&mut state, "wait");
    end(&mut state, "wait", 0, now);
    for name in ["side", "a", "b"] {
        begin(&mut state, name);
    }
    end(&mut state, "a", 0, now);
    assert_eq!(decide(&pod, &state, now).actions, []);
    end(&mut state, "b", 0, now);
    assert_eq!(decide(&pod, &state, now).actions, stop(&["side"]));
    end(&mut state, "side", 143, now);
    assert_eq!(decide(&pod, &state, now).actions, [Action::RemoveSandbox]);
    state.sandbox = Sandbox::Removed { ips: Vec::new() };
    assert_eq!(decide(&pod, &state, now), Decision::default());
}

#[test]
fn deletion_stops_containers_then_sidecars_then_the_network() {
    let now = Instant::now();
    let mut pod = two("Always");
    let mut state = ready(&pod);
    begin(&mut state, "wait");
    end(&mut state, "wait", 0, now);
    for name in ["side", "a", "b"] {
        begin(&mut state, name);
    }
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        Timestamp::UNIX_EPOCH,
    ));
    assert_eq!(decide(&pod, &state, now).actions, stop(&["a", "b"]));
    state.containers.get_mut("a").unwrap().stopping = true;
    assert_eq!(decide(&pod, &state, now).actions, stop(&["b"]));
    end(&mut state, "a", 143, now);
    end(&mut state, "b", 137, now);
    assert_eq!(decide(&pod, &state, now).actions, stop(&["side"]));
    end(&mut state, "side", 143, now);
    assert_eq!(
        decide(&pod, &state, now).actions,
        [Action::RemoveSandbox, Action::Finish]
    );
}

#[test]
fn a_pod_deleted_before_it_began_just_goes() {
    let mut state = PodState::new(&two("Always"), Timestamp::UNIX_EPOCH);
    state.gone = true;
    assert_eq!(
        decide(&two("Always"), &state, Instant::now()).actions,
        [Action::Finish]
    );
}
