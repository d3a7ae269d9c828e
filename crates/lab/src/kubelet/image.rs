//! What a container runs, when there is no image to be had: a program of this
//! machine, or a stand-in.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::Container;

use crate::container::spec::Applets;
use crate::stand_in::Role;

/// Where programs are looked for if the container does not say, as in images.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names in this annotation (of a pod; separated by commas, or `*`) get a
/// stand-in though their command exists on this machine.
pub(super) const STAND_IN_ANNOTATION: &str = "lab.ripstop.dev/stand-in";

/// Images without an entry point, whose arguments are therefore a command.
const BARE_IMAGES: [&str; 13] = [
    "alpine",
    "amazonlinux",
    "archlinux",
    "bash",
    "busybox",
    "centos",
    "debian",
    "dnsutils",
    "fedora",
    "netshoot",
    "opensuse",
    "rockylinux",
    "ubuntu",
];

/// Directories of the machine that a container does not see.
const HIDDEN: [&str; 3] = ["/dev", "/run", "/tmp"];

/// The programs that this machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// What a busybox image has; `None` without a busybox.
    pub(super) busybox: Option<Applets>,
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Program {
    /// The words of a command line.
    Machine {
        words: Vec<String>,
        as_busybox: bool,
    },
    StandIn(Role),
}

impl Program {
    /// For people, as the container's image id.
    pub(super) fn image_id(&self) -> String {
        match self {
            Self::Machine {
                as_busybox: true, ..
            } => "ripstop-lab://busybox-of-this-machine",
            Self::Machine { .. } => "ripstop-lab://program-of-this-machine",
            Self::StandIn(_) => "ripstop-lab://stand-in",
        }
        .to_owned()
    }

    /// What takes the place of pulling the image.
    pub(super) fn describe(&self, image: &str) -> String {
        match self {
            Self::Machine { words, .. } => {
                let program = words.first().map_or("", String::as_str);
                format!("The lab does not pull image {image:?}: {program} of this machine runs")
            }
            Self::StandIn(_) => {
                format!("The lab does not pull image {image:?}: a stand-in takes its place")
            }
        }
    }
}

/// Decides what `container` runs; `command` and `args` are its own, expanded,
/// `path` is the `PATH` of its environment.
pub(super) fn choose(
    container: &Container,
    command: &[String],
    args: &[String],
    path: &str,
    stand_in: bool,
    machine: &Machine,
) -> Program {
    let image = short_name(container.image.as_deref().unwrap_or_default());
    let as_busybox = image == "busybox" && machine.busybox.is_some();
    let runs = |words: Vec<String>| {
        let found = words
            .first()
            .is_some_and(|word| machine.has(word, path, as_busybox));
        (found && !stand_in).then_some(Program::Machine { words, as_busybox })
    };
    let agnhost = image == "agnhost";
    if agnhost
        && command
            .first()
            .is_none_or(|program| base_name(program) == "agnhost")
    {
        let args = command.iter().skip(1).chain(args).cloned().collect();
        return Program::StandIn(Role::Agnhost { args });
    }
    let mut program = None;
    if !command.is_empty() {
        program = runs([command, args].concat());
    } else if let Some(first) = args.first() {
        // An entry point that we cannot know would get these; but a path, or
        // anything in an image without entry point, is a command.
        if first.starts_with('/') || BARE_IMAGES.contains(&image) {
            program = runs(args.to_vec());
        }
    } else if as_busybox {
        program = runs(vec!["sh".to_owned()]);
    }
    program.unwrap_or_else(|| Program::StandIn(serve(container)))
}

impl Machine {
    fn has(&self, program: &str, path: &str, as_busybox: bool) -> bool {
        let applets = self.busybox.as_ref().filter(|_| as_busybox);
        if applets.is_some_and(|applets| applets.names.contains(base_name(program))) {
            return true;
        }
        if program.contains('/') {
            return visible(Path::new(program));
        }
        path.split(':')
            .any(|dir| visible(&Path::new(dir).join(program)))
    }
}

/// Whether a container would find a program there.
fn visible(path: &Path) -> bool {
    let hidden = HIDDEN.iter().any(|dir| path.starts_with(dir));
    let executable = || {
        path.metadata()
            .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    path.is_absolute() && !hidden && executable()
}

/// A server on the ports that the container declares, and those at which its
/// own probes will look: without them it could never be ready.
fn serve(container: &Container) -> Role {
    let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
    for port in container.ports.iter().flatten() {
        let Ok(number) = u16::try_from(port.container_port) else {
            continue;
        };
        match port.protocol.as_deref() {
            None | Some("TCP") => tcp.insert(number),
            Some("UDP") => udp.insert(number),
            // SCTP needs a kernel module that few machines load.
            Some(_) => false,
        };
    }
    tcp.extend(super::probe::ports(container));
    Role::Serve {
        tcp: tcp.into_iter().collect(),
        udp: udp.into_iter().collect(),
    }
}

/// `registry.example:5000/team/name:tag@sha256:...` is `name`.
fn short_name(image: &str) -> &str {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(['@', ':']).next().unwrap_or(last)
}

pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn chosen(image: &str, command: &str, args: &str) -> Program {
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "image": image,
            "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}],
            "readinessProbe": {"httpGet": {"port": 8080}},
        }))
        .unwrap();
        let names = ["sh", "nslookup-only-here"].map(str::to_owned).into();
        let applets = Applets {
            program: "/bin/busybox".into(),
            dirs: BTreeSet::new(),
            names,
        };
        let machine = Machine {
            busybox: Some(applets),
        };
        choose(
            &container,
            &words(command),
            &words(args),
            DEFAULT_PATH,
            false,
            &machine,
        )
    }

    #[test]
    fn what_runs() {
        let program = |line: &str, as_busybox| Program::Machine {
            words: words(line),
            as_busybox,
        };
        let agnhost = |line: &str| Program::StandIn(Role::Agnhost { args: words(line) });
        let server = || {
            Program::StandIn(Role::Serve {
                tcp: vec![80, 8080],
                udp: vec![53],
            })
        };
        for (image, command, args, expected) in [
            ("shop/frontend:v1", "", "", server()),
            ("shop/frontend:v1", "/app/server", "--port 80", server()),
            ("shop/frontend:v1", "server-that-is-not-here", "", server()),
            ("shop/frontend:v1", "", "test x", server()),
            (
                "shop/frontend:v1",
                "",
                "/bin/sh -c true",
                program("/bin/sh -c true", false),
            ),
            (
                "shop/frontend:v1",
                "sh -c",
                "true",
                program("sh -c true", false),
            ),
            ("debian", "", "sleep 9", program("sleep 9", false)),
            (
                "docker.io/library/busybox:1.36@sha256:0",
                "sleep 9",
                "",
                program("sleep 9", true),
            ),
            (
                "busybox",
                "nslookup-only-here",
                "a",
                program("nslookup-only-here a", true),
            ),
            ("busybox", "", "", program("sh", true)),
            (
                "registry.k8s.io/e2e-test-images/agnhost:2.53",
                "",
                "netexec",
                agnhost("netexec"),
            ),
            (
                "agnhost",
                "/agnhost netexec",
                "--http-port=80",
                agnhost("netexec --http-port=80"),
            ),
            ("agnhost:2", "", "", agnhost("")),
            ("agnhost:2", "sh -c", "true", program("sh -c true", false)),
            ("registry.k8s.io/pause:3.9", "/pause", "", server()),
            ("x", "/tmp/sh", "", server()),
        ] {
            assert_eq!(
                chosen(image, command, args),
                expected,
                "{image} {command} {args}"
            );
        }
    }

    #[test]
    fn stand_ins_on_request() {
        let container = Container::default();
        let command = words("sh -c true");
        let program = choose(
            &container,
            &command,
            &[],
            DEFAULT_PATH,
            true,
            &Machine::default(),
        );
        assert!(matches!(program, Program::StandIn(_)));
    }
}
