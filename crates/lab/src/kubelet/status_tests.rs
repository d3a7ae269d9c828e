use std::time::Instant;

use serde_json::{Value, json};

use super::*;

fn time(second: i64) -> Time {
    Time(Timestamp::from_second(second).unwrap())
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "generation": 1}, "spec": spec}))
        .unwrap()
}

fn ready(pod: &Pod) -> PodState {
    let mut state = PodState::new(pod, Timestamp::UNIX_EPOCH);
    let ips = vec![
        "10.244.1.5".parse().unwrap(),
        "fd00:244:0:1::5".parse().unwrap(),
    ];
    state.sandbox = Sandbox::Ready { ips };
    state
}

fn begin(state: &mut PodState, name: &str, ready: bool) {
    let container = state.containers.get_mut(name).unwrap();
    container.begin("id".to_owned(), "image".to_owned(), Timestamp::UNIX_EPOCH);
    container.started = true;
    container.ready = ready;
}

fn end(state: &mut PodState, name: &str, exit_code: i32) {
    let termination = Termination {
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: None,
        started: Timestamp::UNIX_EPOCH,
        finished: Timestamp::UNIX_EPOCH,
        id: "id".to_owned(),
    };
    state
        .containers
        .get_mut(name)
        .unwrap()
        .end(termination, Instant::now());
}

fn report(pod: &Pod, state: &PodState) -> PodStatus {
    pod_status(pod, state, &["172.30.1.11".parse().unwrap()], &time(7))
}

/// Condition, status, reason.
fn conditions(status: &PodStatus) -> Vec<(String, String, String)> {
    let conditions = status.conditions.iter().flatten();
    conditions
        .map(|c| {
            (
                c.type_.clone(),
                c.status.clone(),
                c.reason.clone().unwrap_or_default(),
            )
        })
        .collect()
}

fn expected(rows: [(&str, &str, &str); 5]) -> Vec<(String, String, String)> {
    rows.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()))
        .into()
}

#[test]
fn a_pod_that_waits_for_its_network_says_why() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "x"}]}));
    let mut state = PodState::new(&pod, Timestamp::UNIX_EPOCH);
    let waiting = |status: PodStatus| {
        let statuses = status.container_statuses.unwrap();
        statuses[0].state.clone().unwrap().waiting.unwrap()
    };
    assert_eq!(
        waiting(report(&pod, &state)).reason.as_deref(),
        Some("ContainerCreating")
    );
    let problem = Some("no address left".to_owned());
    state.sandbox = Sandbox::Absent {
        problem,
        retry: None,
        failures: 1,
    };
    let status = report(&pod, &state);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.pod_ip, None);
    assert_eq!(
        conditions(&status),
        expected([
            ("PodReadyToStartContainers", "False", ""),
            ("Initialized", "True", ""),
            ("Ready", "False", "ContainersNotReady"),
            ("ContainersReady", "False", "ContainersNotReady"),
            ("PodScheduled", "True", ""),
        ])
    );
    let waiting = waiting(status);
    assert_eq!(waiting.reason.as_deref(), Some("FailedCreatePodSandBox"));
    assert_eq!(waiting.message.as_deref(), Some("no address left"));
}

#[test]
fn a_running_pod() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "x"}]}));
    let mut state = ready(&pod);
    begin(&mut state, "a", true);
    let status = report(&pod, &state);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.5"));
    assert_eq!(status.pod_ips.as_ref().unwrap().len(), 2);
    assert_eq!(status.host_ip.as_deref(), Some("172.30.1.11"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert!(container.ready && container.started == Some(true));
    assert_eq!(container.container_id.as_deref(), Some("ripstop://id"));
    assert!(
        conditions(&status)
            .iter()
            .all(|(_, status, _)| status == "True")
    );
}

#[test]
fn times_change_only_with_the_status() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut state = ready(&pod);
    begin(&mut state, "a", false);
    pod.status = Some(report(&pod, &state));
    state.containers.get_mut("a").unwrap().ready = true;
    let status = pod_status(&pod, &state, &[], &time(99));
    for condition in status.conditions.unwrap() {
        let changed = ["Ready", "ContainersReady"].contains(&condition.type_.as_str());
        let since = if changed { time(99) } else { time(7) };
        assert_eq!(
            condition.last_transition_time,
            Some(since),
            "{}",
            condition.type_
        );
    }
    assert_eq!(status.start_time, Some(time(0)));
}

#[test]
fn phases() {
    let spec = |policy: &str| {
        json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        })
    };
    // What happened to i, a and b: none, running, or an exit code.
    #[derive(Clone, Copy)]
    enum Now {
        No,
        Runs,
        Ended(i32),
    }
    use Now::{Ended, No, Runs};
    for (policy, now, expected) in [
        ("Always", [No, No, No], "Pending"),
        ("Always", [Runs, No, No], "Pending"),
        ("Always", [Ended(1), No, No], "Pending"),
        ("Never", [Ended(1), No, No], "Failed"),
        ("Always", [Ended(0), Runs, No], "Pending"),
        ("Always", [Ended(0), Runs, Runs], "Running"),
        ("Always", [Ended(0), Runs, Ended(1)], "Running"),
        ("Always", [Ended(0), Ended(0), Ended(1)], "Running"),
        ("OnFailure", [Ended(0), Ended(0), Ended(1)], "Running"),
        ("OnFailure", [Ended(0), Ended(0), Ended(0)], "Succeeded"),
        ("Never", [Ended(0), Ended(0), Ended(0)], "Succeeded"),
        ("Never", [Ended(0), Ended(0), Ended(1)], "Failed"),
    ] {
        let pod = pod(spec(policy));
        let mut state = ready(&pod);
        for (name, now) in ["i", "a", "b"].into_iter().zip(now) {
            match now {
                No => {}
                Runs => begin(&mut state, name, true),
                Ended(code) => {
                    begin(&mut state, name, true);
                    end(&mut state, name, code);
                }
            }
        }
        let codes: Vec<_> = state.containers.values().map(|c| c.phase.clone()).collect();
        assert_eq!(super::phase(&pod, &state), expected, "{policy} {codes:?}");
    }
}

#[test]
fn a_crash_loop_shows_its_last_end() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut state = ready(&pod);
    begin(&mut state, "a", false);
    end(&mut state, "a", 3);
    begin(&mut state, "a", false);
    end(&mut state, "a", 4);
    state
        .containers
        .get_mut("a")
        .unwrap()
        .hold_back("back-off 10s".to_owned());
    let status = report(&pod, &state);
    let container = &status.container_statuses.unwrap()[0];
    let waiting = container.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container
        .last_state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!((last.exit_code, container.restart_count), (4, 1));
}

#[test]
fn init_containers_and_gates_hold_readiness() {
    let mut pod = pod(json!({
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}],
        "readinessGates": [{"conditionType": "example.com/ok"}],
    }));
    let mut state = ready(&pod);
    begin(&mut state, "i", false);
    let status = report(&pod, &state);
    assert_eq!(conditions(&status)[1].2, "ContainersNotInitialized");
    let waiting = status.container_statuses.unwrap()[0]
        .state
        .clone()
        .unwrap()
        .waiting
        .unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));

    end(&mut state, "i", 0);
    begin(&mut state, "a", true);
    let status = report(&pod, &state);
    assert!(status.init_container_statuses.as_ref().unwrap()[0].ready);
    assert_eq!(conditions(&status)[2].2, "ReadinessGatesNotReady");
    let mut with_gate = status;
    with_gate
        .conditions
        .as_mut()
        .unwrap()
        .push(serde_json::from_value(json!({"type": "example.com/ok", "status": "True"})).unwrap());
    pod.status = Some(with_gate);
    assert_eq!(conditions(&report(&pod, &state))[2].1, "True");
}

#[test]
fn qos() {
    let class = |resources: Value| {
        let pod = pod(json!({"containers": [{"name": "a", "resources": resources}]}));
        report(&pod, &ready(&pod)).qos_class.unwrap()
    };
    let full = json!({"cpu": "1", "memory": "1Gi"});
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"limits": full})), "Guaranteed");
    assert_eq!(
        class(json!({"requests": full, "limits": full})),
        "Guaranteed"
    );
    assert_eq!(class(json!({"requests": full})), "Burstable");
}
