//! What load balancers ask a node: `healthCheckNodePort` of services with
//! `externalTrafficPolicy: Local`, and whether the node carries services at all
//! (`/healthz`). Answers are those of kube-proxy.
//! <https://github.com/kubernetes/kubernetes/tree/master/pkg/proxy/healthcheck>

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use ripstop_model::{ObjectKind, ObjectRef, Problem, Reason};
use ripstop_plan::HealthCheck;
use tokio::task::AbortHandle;
use tracing::warn;

use super::http::{self, Answer, Http, Reply};
use super::privileges::Powerless;
use super::status::Counts;

/// The listeners of this node, followed from the main thread.
pub(crate) struct HealthServer {
    http: Http,
    told: Arc<Told>,
    addresses: Vec<IpAddr>,
    /// By port; empty while the port cannot be had.
    listeners: BTreeMap<u16, Vec<AbortHandle>>,
    problems: BTreeSet<Problem>,
}

/// What answers are made of.
struct Told {
    checks: Mutex<BTreeMap<u16, HealthCheck>>,
    counts: Arc<Counts>,
}

impl HealthServer {
    /// Answers `/healthz` at `port` from now on, unless that is 0. A port that
    /// cannot be had (kube-proxy may still run) is no error.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub(crate) fn start(port: u16, counts: Arc<Counts>, powerless: &Powerless) -> Result<Self> {
        let told = Arc::new(Told {
            checks: Mutex::default(),
            counts,
        });
        let server = Self {
            http: Http::start("health", powerless)?,
            told: Arc::clone(&told),
            addresses: Vec::new(),
            listeners: BTreeMap::new(),
            problems: BTreeSet::new(),
        };
        let answer: Answer = Arc::new(move |path| healthz(&told, path));
        if port != 0
            && let Err(error) = server.http.listen_everywhere(port, &answer)
        {
            warn!(port, %error, "nobody answers /healthz");
        }
        Ok(server)
    }

    /// Follows changes of the plan, and the node's addresses for NodePorts:
    /// these ports answer where those do. Ports that could not be had before are
    /// tried again. True if [`HealthServer::problems`] changed.
    pub(crate) fn follow(
        &mut self,
        changes: BTreeMap<u16, Option<HealthCheck>>,
        addresses: &[IpAddr],
    ) -> bool {
        let mut checks = self
            .told
            .checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (port, check) in changes {
            match check {
                Some(check) => drop(checks.insert(port, check)),
                None => drop(checks.remove(&port)),
            }
        }
        let wanted: BTreeMap<u16, HealthCheck> = checks.clone();
        drop(checks);
        let moved = self.addresses != addresses;
        self.addresses = addresses.to_vec();
        self.listeners.retain(|port, listeners| {
            let stays = !moved && wanted.contains_key(port);
            if !stays {
                listeners.iter().for_each(AbortHandle::abort);
            }
            stays
        });
        let mut problems = BTreeSet::new();
        for (port, check) in &wanted {
            if self.listeners.contains_key(port) {
                continue;
            }
            match self.listen_for(*port) {
                Ok(listeners) => drop(self.listeners.insert(*port, listeners)),
                Err(error) => drop(problems.insert(Problem {
                    object: ObjectRef::new(ObjectKind::Service, check.service.clone()),
                    reason: Reason::HealthCheckPortTaken,
                    message: format!("spec.healthCheckNodePort: port {port} of the node: {error}"),
                })),
            }
        }
        let before = std::mem::replace(&mut self.problems, problems);
        before != self.problems
    }

    pub(crate) fn problems(&self) -> &BTreeSet<Problem> {
        &self.problems
    }

    /// All or none.
    fn listen_for(&self, port: u16) -> std::io::Result<Vec<AbortHandle>> {
        let mut listeners: Vec<AbortHandle> = Vec::new();
        let told = Arc::clone(&self.told);
        let answer: Answer = Arc::new(move |_| service(&told, port));
        for address in &self.addresses {
            let at = SocketAddr::new(*address, port);
            match self.http.listen(at, Arc::clone(&answer)) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    listeners.iter().for_each(AbortHandle::abort);
                    return Err(error);
                }
            }
        }
        Ok(listeners)
    }
}

/// `healthCheckNodePort`, whatever the path.
fn service(told: &Told, port: u16) -> Reply {
    let checks = told.checks.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(check) = checks.get(&port) else {
        return respond(StatusCode::NOT_FOUND, String::new());
    };
    let healthy = told.counts.is_healthy();
    let count = check.local_endpoints;
    let status = match count > 0 && healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let (namespace, name) = (&check.service.namespace, &check.service.name);
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\
         \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let mut response = respond(status, body);
    let weight = hyper::header::HeaderValue::from(count);
    response
        .headers_mut()
        .insert("X-Load-Balancing-Endpoint-Weight", weight);
    response
}

fn healthz(told: &Told, path: &str) -> Reply {
    if !matches!(path, "/healthz" | "/livez") {
        return respond(StatusCode::NOT_FOUND, String::new());
    }
    let healthy = told.counts.is_healthy();
    let status = match healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let now = Timestamp::now();
    let updated = told.counts.updated();
    let body = format!(
        "{{\"lastUpdated\": \"{updated}\",\"currentTime\": \"{now}\",\"nodeEligible\": true}}"
    );
    respond(status, body)
}

fn respond(status: StatusCode, body: String) -> Reply {
    http::respond(status, "application/json", body)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};
    use std::time::Duration;

    use ripstop_model::ObjectKey;

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn ask(port: u16, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect((LOCALHOST, port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: n\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }

    fn check(local_endpoints: usize) -> Option<HealthCheck> {
        Some(HealthCheck {
            service: ObjectKey::new("shop", "web"),
            local_endpoints,
        })
    }

    fn started(port: u16, counts: Arc<Counts>) -> HealthServer {
        HealthServer::start(port, counts, &Powerless::start().unwrap()).unwrap()
    }

    /// One that nobody listens at for the moment.
    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind((LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_port_answers_as_long_as_the_plan_has_it() {
        let counts = Arc::new(Counts::default());
        let mut server = started(0, Arc::clone(&counts));
        let port = free_port();
        let mut follow = |check| server.follow([(port, check)].into(), &[LOCALHOST]);
        follow(check(2));
        // Nothing is known of the cluster yet.
        assert!(ask(port, "/").unwrap().starts_with("HTTP/1.1 503 "));
        counts.synced();
        let text = ask(port, "/").unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("x-load-balancing-endpoint-weight: 2\r\n"),
            "{text}"
        );
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let expected = serde_json::json!({
            "service": {"namespace": "shop", "name": "web"},
            "localEndpoints": 2,
            "serviceProxyHealthy": true,
        });
        assert_eq!(body, expected);
        follow(check(0));
        assert!(ask(port, "/").unwrap().starts_with("HTTP/1.1 503 "));
        follow(None);
        // The task that held the port ends on another thread.
        for _ in 0..200 {
            if ask(port, "/").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the port still answers");
    }

    #[test]
    fn a_port_that_is_taken_is_a_problem_until_it_is_free() {
        let counts = Arc::new(Counts::default());
        let mut server = started(0, counts);
        let other = std::net::TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(server.follow([(port, check(1))].into(), &[LOCALHOST]));
        let problem = server.problems().first().unwrap();
        assert_eq!(problem.object.to_string(), "Service shop/web");
        drop(other);
        // A process that another test is just starting still has it, until it is
        // another program.
        let mut tried = (0..1000).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            server.follow(BTreeMap::new(), &[LOCALHOST])
        });
        assert!(tried.any(|changed| changed), "the port stays taken");
        assert!(server.problems().is_empty());
        assert!(ask(port, "/").is_ok());
    }

    #[test]
    fn healthz() {
        let counts = Arc::new(Counts::default());
        let port = free_port();
        let _server = started(port, Arc::clone(&counts));
        assert!(ask(port, "/healthz").unwrap().starts_with("HTTP/1.1 503 "));
        counts.synced();
        let text = ask(port, "/healthz").unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("\"nodeEligible\": true"), "{text}");
        counts.failed("no memory".to_owned());
        assert!(ask(port, "/healthz").unwrap().starts_with("HTTP/1.1 503 "));
        assert!(ask(port, "/metrics").unwrap().starts_with("HTTP/1.1 404 "));
    }
}
