//! Pods: most of the wording that people read in a terminal is here
//! (`printPod`).

use serde_json::{Value, json};

use super::{Header, age, list, name, number, or_none, seconds, text};

pub(super) const POD: &[Header] = &[
    ("Name", "string", 0),
    ("Ready", "string", 0),
    ("Status", "string", 0),
    ("Restarts", "string", 0),
    ("Age", "string", 0),
    ("IP", "string", 1),
    ("Node", "string", 1),
    ("Nominated Node", "string", 1),
    ("Readiness Gates", "string", 1),
];

pub(super) fn pod(pod: &Value, now: i64) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(then) if summary.restarts > 0 => {
            format!(
                "{} ({} ago)",
                summary.restarts,
                super::duration::human(now - then)
            )
        }
        _ => summary.restarts.to_string(),
    };
    let addresses = list(pod, "/status/podIPs");
    let address = addresses
        .first()
        .map_or_else(|| text(pod, "/status/podIP"), |it| text(it, "/ip"));
    vec![
        name(pod),
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        or_none(address),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        json!(readiness_gates(pod)),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let met = gates
        .iter()
        .filter(|gate| condition(pod, text(gate, "/conditionType")) == Some("True"))
        .count();
    format!("{met}/{}", gates.len())
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    list(pod, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == kind)
        .map(|condition| text(condition, "/status"))
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    /// Seconds since the epoch.
    last_restart: Option<i64>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let mut summary = Self {
            reason: text(pod, "/status/phase").to_owned(),
            ready: 0,
            total: list(pod, "/spec/containers").len(),
            restarts: 0,
            last_restart: None,
        };
        match text(pod, "/status/reason") {
            "" => {}
            reason => reason.clone_into(&mut summary.reason),
        }
        let scheduled = list(pod, "/status/conditions").iter().find(|condition| {
            text(condition, "/type") == "PodScheduled" && text(condition, "/status") == "False"
        });
        if let Some(condition) = scheduled
            && text(condition, "/reason") == "SchedulingGated"
        {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let initialising = summary.add_init_containers(pod);
        if !initialising || condition(pod, "Initialized") == Some("True") {
            summary.add_containers(pod);
        }
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            let reason = match text(pod, "/status/reason") {
                "NodeLost" => "Unknown",
                _ if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") => {
                    return summary;
                }
                _ => "Terminating",
            };
            reason.clone_into(&mut summary.reason);
        }
        summary
    }

    /// Returns whether an init container has still to finish.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let specs = list(pod, "/spec/initContainers");
        let sidecar = |status: &Value| {
            let container = text(status, "/name");
            specs.iter().any(|spec| {
                text(spec, "/name") == container && text(spec, "/restartPolicy") == "Always"
            })
        };
        self.total += specs
            .iter()
            .filter(|spec| text(spec, "/restartPolicy") == "Always")
            .count();
        let mut sidecar_restarts = (0, None);
        for (index, status) in list(pod, "/status/initContainerStatuses")
            .iter()
            .enumerate()
        {
            let sidecar = sidecar(status);
            self.restarts += number(status, "/restartCount");
            self.last_restart = self.last_restart.max(last_end(status));
            if sidecar {
                sidecar_restarts.0 += number(status, "/restartCount");
                sidecar_restarts.1 = sidecar_restarts.1.max(last_end(status));
            }
            let ended = status.pointer("/state/terminated");
            let waiting = text(status, "/state/waiting/reason");
            let started = status["started"].as_bool().unwrap_or(false);
            if ended.is_some_and(|ended| number(ended, "/exitCode") == 0) {
                continue;
            }
            if sidecar && started {
                if status["ready"].as_bool().unwrap_or(false) {
                    self.ready += 1;
                }
                continue;
            }
            self.reason = if let Some(ended) = ended {
                format!("Init:{}", end_reason(ended))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", specs.len())
            };
            return true;
        }
        // Restarts of init containers count only while they run; those of
        // sidecars always.
        (self.restarts, self.last_restart) = sidecar_restarts;
        false
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut any_running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.restarts += number(status, "/restartCount");
            self.last_restart = self.last_restart.max(last_end(status));
            let waiting = text(status, "/state/waiting/reason");
            let ready = status["ready"].as_bool().unwrap_or(false);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(ended) = status.pointer("/state/terminated") {
                self.reason = end_reason(ended);
            } else if ready && status.pointer("/state/running").is_some() {
                any_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && any_running {
            let ready = condition(pod, "Ready") == Some("True");
            let reason = if ready { "Running" } else { "NotReady" };
            reason.clone_into(&mut self.reason);
        }
    }
}

fn end_reason(ended: &Value) -> String {
    match (text(ended, "/reason"), number(ended, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(ended, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn last_end(status: &Value) -> Option<i64> {
    seconds(status.pointer("/lastState/terminated/finishedAt")?)
}
