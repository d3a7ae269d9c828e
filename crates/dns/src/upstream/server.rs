//! One upstream server: the way to it, and whether it answers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use hickory_net::NetError;
use hickory_net::proto::op::{DnsRequestOptions, Message, Query, ResponseCode};
use hickory_net::proto::rr::{Name, RecordType};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::tcp::TcpClientStream;
use hickory_net::tls::tls_exchange;
use hickory_net::udp::UdpClientStream;
use hickory_net::xfer::{DnsExchange, DnsHandle};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::config::{UpstreamServer, UpstreamTransport};
use crate::reply::UDP_MAX;

/// For one server. Resolvers wait 5 s: three servers are tried before they give
/// up.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// Failures after each other that make a server one to be asked last.
const FAILURES: u32 = 3;
/// Between looks whether it is back; doubled up to the longest.
const PROBE: Duration = Duration::from_millis(500);
const PROBE_MAX: Duration = Duration::from_secs(16);
/// Questions at a time over one connection.
const PIPELINE: usize = 256;

type Exchange = DnsExchange<TokioRuntimeProvider>;

/// What is known of a server, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerState {
    pub server: String,
    pub healthy: bool,
    pub asked: u64,
    pub failed: u64,
}

/// A server that was not able to answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("no answer in {TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the connection has ended")]
    Ended,
}

#[derive(Debug)]
pub(crate) struct Server {
    config: UpstreamServer,
    tls: Option<ClientConfig>,
    /// The connection for TCP or TLS, while it lasts.
    connection: tokio::sync::Mutex<Option<Opened>>,
    /// Keeps the letters' case of questions, as RFC 1035 wants it: then a forger
    /// has to guess it (draft-vixie-dnsext-dns0x20).
    keeps_case: AtomicBool,
    failures: AtomicU32,
    probing: AtomicBool,
    asked: AtomicU64,
    failed: AtomicU64,
}

/// `DnsExchange` cannot be shown.
struct Opened {
    exchange: Exchange,
    /// Ends what drives the connection when it is dropped.
    _provider: TokioRuntimeProvider,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection")
    }
}

impl Server {
    pub(crate) fn new(config: UpstreamServer, tls: Option<ClientConfig>) -> Self {
        Self {
            config,
            tls,
            connection: tokio::sync::Mutex::default(),
            keeps_case: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            probing: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES
    }

    pub(crate) fn state(&self) -> ServerState {
        ServerState {
            server: self.config.to_string(),
            healthy: self.is_healthy(),
            asked: self.asked.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    /// The server's answer, whatever it says.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        name: &Name,
        kind: RecordType,
        dnssec: bool,
    ) -> Result<Message, AskError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answered = timeout(TIMEOUT, self.try_ask(name, kind, dnssec)).await;
        match answered.unwrap_or(Err(AskError::Timeout)) {
            Ok(message) => {
                if self.failures.swap(0, Ordering::Relaxed) >= FAILURES {
                    info!(server = %self.config, "the upstream server answers again");
                }
                Ok(message)
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                if self.failures.fetch_add(1, Ordering::Relaxed) + 1 == FAILURES {
                    warn!(server = %self.config, %error, "an upstream server does not answer");
                    self.probe();
                }
                Err(error)
            }
        }
    }

    async fn try_ask(
        &self,
        name: &Name,
        kind: RecordType,
        dnssec: bool,
    ) -> Result<Message, AskError> {
        let query = || Query::query(name.clone(), kind);
        let mut options = DnsRequestOptions::default();
        options.edns_payload_len = UDP_MAX;
        options.edns_set_dnssec_ok = dnssec;
        options.case_randomization = self.keeps_case.load(Ordering::Relaxed);
        if self.config.transport != UpstreamTransport::Udp {
            return self.over_connection(query(), options).await;
        }
        // A socket with a random port for each question.
        let provider = TokioRuntimeProvider::new();
        let stream = UdpClientStream::builder(self.config.address, provider)
            .with_timeout(Some(TIMEOUT))
            .exchange();
        let answered = match first(stream.lookup(query(), options)).await {
            Err(AskError::Net(NetError::QueryCaseMismatch)) => {
                self.keeps_case.store(false, Ordering::Relaxed);
                options.case_randomization = false;
                first(stream.lookup(query(), options)).await
            }
            answered => answered,
        }?;
        match answered.metadata.truncation {
            true => self.over_connection(query(), options).await,
            false => Ok(answered),
        }
    }

    /// Over the connection that is there, or a new one if it has ended.
    async fn over_connection(
        &self,
        query: Query,
        mut options: DnsRequestOptions,
    ) -> Result<Message, AskError> {
        // Nobody can forge an answer in a connection.
        options.case_randomization = false;
        for attempt in 0..2 {
            let exchange = self.connect().await?;
            match first(exchange.lookup(query.clone(), options)).await {
                Err(_) if attempt == 0 => drop(self.connection.lock().await.take()),
                answered => return answered,
            }
        }
        Err(AskError::Ended)
    }

    async fn connect(&self) -> Result<Exchange, AskError> {
        let mut connection = self.connection.lock().await;
        if let Some(opened) = &*connection {
            return Ok(opened.exchange.clone());
        }
        let (address, driver) = (self.config.address, TokioRuntimeProvider::new());
        let provider = driver.clone();
        let exchange = match (&self.config.transport, &self.tls) {
            (UpstreamTransport::Tls(name), Some(tls)) => {
                let name = match name.clone().map(ServerName::try_from) {
                    Some(Ok(name)) => name,
                    // No name, or none that a certificate could have.
                    Some(Err(_)) | None => ServerName::from(address.ip()),
                };
                tls_exchange(
                    address,
                    name,
                    tls.clone(),
                    TIMEOUT,
                    Some(PIPELINE),
                    provider,
                )
                .await?
            }
            _ => {
                TcpClientStream::exchange(address, None, TIMEOUT, Some(PIPELINE), provider).await?
            }
        };
        *connection = Some(Opened {
            exchange: exchange.clone(),
            _provider: driver,
        });
        Ok(exchange)
    }

    /// Looks after a server that has failed until it answers.
    fn probe(self: &Arc<Self>) {
        if self.probing.swap(true, Ordering::Relaxed) {
            return;
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let mut pause = PROBE;
            while !server.is_healthy() {
                sleep(pause).await;
                pause = (pause * 2).min(PROBE_MAX);
                let root = Name::root();
                let asked = server.try_ask(&root, RecordType::NS, false);
                if let Ok(Ok(_)) = timeout(TIMEOUT, asked).await {
                    server.failures.store(0, Ordering::Relaxed);
                    info!(server = %server.config, "the upstream server answers again");
                }
            }
            server.probing.store(false, Ordering::Relaxed);
        });
    }
}

async fn first<S>(mut responses: S) -> Result<Message, AskError>
where
    S: futures::Stream<Item = Result<hickory_net::proto::op::DnsResponse, NetError>> + Unpin,
{
    match responses.next().await {
        Some(response) => Ok(response?.into_message()),
        None => Err(AskError::Ended),
    }
}

/// Whether another server may know better.
pub(crate) fn is_failure(message: &Message) -> bool {
    !matches!(
        message.metadata.response_code,
        ResponseCode::NoError | ResponseCode::NXDomain
    )
}

/// Certificates to check servers against. Those that cannot be read are left
/// out.
pub(crate) fn tls_config(roots: &[u8]) -> ClientConfig {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut store = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(roots).filter_map(Result::ok);
    store.add_parsable_certificates(certificates);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    // The provider has what the default versions need.
    builder
        .map(|builder| {
            builder
                .with_root_certificates(store.clone())
                .with_no_client_auth()
        })
        .unwrap_or_else(|_| {
            ClientConfig::builder()
                .with_root_certificates(store)
                .with_no_client_auth()
        })
}

/// For what only counts.
pub(crate) fn unpoisoned<T>(lock: Result<T, PoisonError<T>>) -> T {
    lock.unwrap_or_else(PoisonError::into_inner)
}
