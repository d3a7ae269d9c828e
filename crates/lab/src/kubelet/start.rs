//! Starting a container: from its specification to a process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Service};

use super::cgroup::Cgroup;
use super::env::environment;
use super::exec::Enter;
use super::expand::expand;
use super::facts::{ConfigError, Facts};
use super::image::{self, DEFAULT_PATH, Program, STAND_IN_ANNOTATION};
use super::log::Log;
use super::node::Node;
use super::process::Process;
use super::sandbox::Sandbox;
use super::volumes::{self, VolumeError};
use super::{service_env, user};
use crate::container::spec::{Applets, Bind, ProcessSpec, Root, Run, Surroundings};
use crate::stand_in::{Identity, StandIn};

/// Where containers leave their last words, unless they say otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    User(#[from] user::RootRefused),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

impl Refused {
    /// kubelet's word for a container that waits for this.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Config(_) | Self::Volume(_) | Self::User(_) => "CreateContainerConfigError",
            Self::Io { .. } => "CreateContainerError",
        }
    }
}

/// A container that was started.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) id: String,
    pub(super) process: Process,
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) program: Program,
    pub(super) log: Arc<Log>,
    /// The way in, for exec, probes and hooks.
    pub(super) enter: Arc<Enter>,
}

/// Files of one container.
pub(crate) fn container_dir(pod_dir: &Path, container: &str) -> PathBuf {
    pod_dir.join("containers").join(container)
}

/// The host's side of a container's termination log.
pub(super) fn termination_log(container_dir: &Path) -> PathBuf {
    container_dir.join("termination-log")
}

/// Starts the `run`-th run of a container.
///
/// # Errors
/// [`Refused`]; nothing is left of the attempt but files in the pod's directory.
pub(super) async fn start(
    node: &Node,
    pod: &Pod,
    container: &Container,
    sandbox: &Sandbox,
    run: i32,
) -> Result<Started, Refused> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |source| Refused::Io { what, source }
    };
    let dir = container_dir(&sandbox.dir, &container.name);
    let scratch = dir.join("root");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&scratch)
        .map_err(io("files"))?;
    let last_words = termination_log(&dir);
    fs::write(&last_words, "")
        // Whatever user the container runs as.
        .and_then(|()| fs::set_permissions(&last_words, PermissionsExt::from_mode(0o666)))
        .map_err(io("termination log"))?;

    let env = variables(node, pod, container, sandbox)?;
    let program = program(node, pod, container, &env);
    let id = format!(
        "{:016x}{:016x}",
        rand::random::<u64>(),
        rand::random::<u64>()
    );
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    // Short, and still never the same twice in a pod.
    let path = node.spec.cgroup.join(uid).join(&id[..12]);
    let cgroup = Arc::new(Cgroup::create(path).map_err(io("control group"))?);
    let spec = ProcessSpec {
        cgroup: Some(cgroup.path().to_owned()),
        netns: sandbox.netns.clone(),
        surroundings: Surroundings::New(Root {
            applets: applets(node, &program),
            scratch,
            hostname: Some(sandbox.hostname.clone()),
            mounts: mounts(node, pod, container, sandbox, &env)?,
            read_only: container
                .security_context
                .as_ref()
                .and_then(|security| security.read_only_root_filesystem)
                .unwrap_or(false),
        }),
        env,
        working_dir: container
            .working_dir
            .as_deref()
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from),
        user: match program {
            Program::Machine { .. } => user::user(pod, container)?,
            // Ours: it needs no less than the lab has.
            Program::StandIn(_) => None,
        },
        terminal: false,
        notify: true,
        run: what_runs(node, pod, container, sandbox, &program),
    };
    let log = Arc::new(Log::create(&dir, run).map_err(io("log"))?);
    let started = Process::start(&node.context.exe, &dir, &spec, &log).await;
    let process = match started {
        Ok(process) => process,
        Err(source) => {
            // Nobody is in it.
            let _ = cgroup.destroy().await;
            return Err(io("container process")(source));
        }
    };
    let inside = process.report.pid.unwrap_or(process.pid);
    let enter = Arc::new(Enter::new(&node.context.exe, &dir, &spec, inside));
    if let Err(error) = enter.publish() {
        // Only `ripstop lab exec` does without it; kubectl goes another way.
        tracing::warn!(container = container.name, %error, "no way in written");
    }
    Ok(Started {
        id,
        process,
        cgroup,
        program,
        log,
        enter,
    })
}

fn variables(
    node: &Node,
    pod: &Pod,
    container: &Container,
    sandbox: &Sandbox,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let facts = Facts {
        pod,
        node: &node.spec.name,
        pod_ips: &sandbox.ips,
        host_ips: &node.spec.addresses,
        allocatable: &node.context.allocatable,
    };
    let services = node.context.client.list_shared::<Service>(None);
    let links = pod
        .spec
        .as_ref()
        .and_then(|s| s.enable_service_links)
        .unwrap_or(true);
    let discovery = service_env::variables(services.iter().map(|s| &**s), facts.namespace(), links);
    let mut env = environment(container, &facts, &node.context.sources, &discovery)?;
    // What runtimes and images bring along.
    for (name, value) in [
        ("PATH", DEFAULT_PATH),
        ("HOSTNAME", &sandbox.hostname),
        ("HOME", "/root"),
    ] {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    Ok(env)
}

fn program(
    node: &Node,
    pod: &Pod,
    container: &Container,
    env: &BTreeMap<String, String>,
) -> Program {
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words
            .iter()
            .flatten()
            .map(|word| expand(word, &[env]))
            .collect()
    };
    let annotation = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(STAND_IN_ANNOTATION));
    let stand_in = annotation.is_some_and(|names| {
        names
            .split(',')
            .map(str::trim)
            .any(|name| name == "*" || name == container.name)
    });
    image::choose(
        container,
        &expanded(&container.command),
        &expanded(&container.args),
        env.get("PATH").map_or(DEFAULT_PATH, String::as_str),
        stand_in,
        &node.context.machine,
    )
}

fn applets(node: &Node, program: &Program) -> Option<Applets> {
    match program {
        Program::Machine {
            as_busybox: true, ..
        } => node.context.machine.busybox.clone(),
        _ => None,
    }
}

fn mounts(
    node: &Node,
    pod: &Pod,
    container: &Container,
    sandbox: &Sandbox,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Bind>, VolumeError> {
    let file = |source: PathBuf, target: &str| Bind {
        source,
        target: PathBuf::from(target),
        read_only: false,
        optional: false,
    };
    let dir = container_dir(&sandbox.dir, &container.name);
    let last_words = container
        .termination_message_path
        .as_deref()
        .unwrap_or(TERMINATION_LOG);
    let own = [
        file(sandbox.dir.join("resolv.conf"), "/etc/resolv.conf"),
        file(sandbox.dir.join("hosts"), "/etc/hosts"),
        file(sandbox.dir.join("hostname"), "/etc/hostname"),
        file(termination_log(&dir), last_words),
    ];
    let mut mounts = node.context.file_systems.clone();
    mounts.extend(own);
    mounts.extend(volumes::mounts(
        &sandbox.dir.join("volumes"),
        pod,
        container,
        env,
    )?);
    Ok(mounts)
}

fn what_runs(
    node: &Node,
    pod: &Pod,
    container: &Container,
    sandbox: &Sandbox,
    program: &Program,
) -> Run {
    let role = match program {
        Program::Machine { words, .. } => return Run::Program(words.clone()),
        Program::StandIn(role) => role.clone(),
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    Run::StandIn(StandIn {
        identity: Identity {
            pod: text(&pod.metadata.name),
            namespace: text(&pod.metadata.namespace),
            node: node.spec.name.clone(),
            container: container.name.clone(),
            image: text(&container.image),
            addresses: sandbox.ips.clone(),
        },
        role,
    })
}
