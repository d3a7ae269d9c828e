//! What load balancers ask a node: `healthCheckNodePort` of services with
//! `externalTrafficPolicy: Local`, and whether the node carries services at all
//! (`/healthz`). Answers are those of kube-proxy.
//! <https://github.com/kubernetes/kubernetes/tree/master/pkg/proxy/healthcheck>

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::jiff::Timestamp;
use nix::libc::EAFNOSUPPORT;
use ripstop_model::{ObjectKind, ObjectRef, Problem, Reason};
use ripstop_plan::HealthCheck;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;
use tracing::warn;

use super::status::Counts;
use super::thread;

/// Who has sent no request by then is not going to.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The listeners of this node, followed from the main thread.
pub(crate) struct HealthServer {
    runtime: Handle,
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
    pub(crate) fn start(port: u16, counts: Arc<Counts>) -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("runtime of health checks")?;
        let told = Arc::new(Told {
            checks: Mutex::default(),
            counts,
        });
        let server = Self {
            runtime: runtime.handle().clone(),
            told,
            addresses: Vec::new(),
            listeners: BTreeMap::new(),
            problems: BTreeSet::new(),
        };
        if port != 0
            && let Err(error) = server.listen_everywhere(port)
        {
            warn!(port, %error, "nobody answers /healthz");
        }
        thread::start("health", move || runtime.block_on(std::future::pending()))?;
        Ok(server)
    }

    fn listen_everywhere(&self, port: u16) -> std::io::Result<()> {
        // Takes IPv4 as well, unless the kernel has no IPv6.
        let any = (IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into();
        match self.listen(any, healthz) {
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => {
                let any = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into();
                self.listen(any, healthz).map(drop)
            }
            other => other.map(drop),
        }
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
        for address in &self.addresses {
            match self.listen(SocketAddr::new(*address, port), service) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    listeners.iter().for_each(AbortHandle::abort);
                    return Err(error);
                }
            }
        }
        Ok(listeners)
    }

    fn listen(&self, address: SocketAddr, answer: Answer) -> std::io::Result<AbortHandle> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let _inside = self.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        let told = Arc::clone(&self.told);
        let task = self
            .runtime
            .spawn(accept(listener, told, address.port(), answer));
        Ok(task.abort_handle())
    }
}

/// Gets what is known, the port that was asked and the path.
type Answer = fn(&Told, u16, &str) -> Response<Full<Bytes>>;

async fn accept(listener: TcpListener, told: Arc<Told>, port: u16, answer: Answer) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let told = Arc::clone(&told);
        let respond = move |request: Request<Incoming>| {
            let response = answer(&told, port, request.uri().path());
            async move { Ok::<_, Infallible>(response) }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service_fn(respond));
        // Who leaves in the middle did not want to know.
        tokio::spawn(async { drop(connection.await) });
    }
}

/// `healthCheckNodePort`, whatever the path.
fn service(told: &Told, port: u16, _: &str) -> Response<Full<Bytes>> {
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

fn healthz(told: &Told, _: u16, path: &str) -> Response<Full<Bytes>> {
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

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = hyper::header::HeaderValue::from_static("application/json");
    headers.insert(hyper::header::CONTENT_TYPE, json);
    let nosniff = hyper::header::HeaderValue::from_static("nosniff");
    headers.insert(hyper::header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

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

    /// One that nobody listens at for the moment.
    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind((LOCALHOST, 0)).unwrap();
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn a_port_answers_as_long_as_the_plan_has_it() {
        let counts = Arc::new(Counts::default());
        let mut server = HealthServer::start(0, Arc::clone(&counts)).unwrap();
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
        let mut server = HealthServer::start(0, counts).unwrap();
        let other = std::net::TcpListener::bind((LOCALHOST, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        assert!(server.follow([(port, check(1))].into(), &[LOCALHOST]));
        let problem = server.problems().first().unwrap();
        assert_eq!(problem.object.to_string(), "Service shop/web");
        drop(other);
        assert!(server.follow(BTreeMap::new(), &[LOCALHOST]));
        assert!(server.problems().is_empty());
        assert!(ask(port, "/").is_ok());
    }

    #[test]
    fn healthz() {
        let counts = Arc::new(Counts::default());
        let port = free_port();
        let _server = HealthServer::start(port, Arc::clone(&counts)).unwrap();
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
