//! The kernel programs: loaded once, pinned, adopted.

#[cfg(test)]
mod stacks;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use aya_obj::Object;
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use ripstop_abi::Config as Constants;

use super::apart;
use super::maps::{self, Maps};
use super::pins::Pins;
use super::sys::{self, MapShape};
use crate::Error;

/// The compiled programs of `ebpf/`; made by `cargo xtask ebpf`.
#[cfg(not(feature = "next-layout"))]
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("programs.bpf.o"));
/// Those of the version that does not exist; made by `cargo xtask next-version`.
#[cfg(feature = "next-layout")]
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../target/next/programs.bpf.o"
)));

/// ELF wants its words aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

pub(crate) const FROM_POD: &str = "from_pod";
/// In other versions, for pods with host ports.
pub(crate) const FROM_POD_PORTS: &str = "from_pod_ports";
pub(crate) const TO_POD: &str = "to_pod";
pub(crate) const FROM_OUTSIDE: &str = "from_outside";
pub(crate) const TO_OUTSIDE: &str = "to_outside";

pub(crate) const SOCKET_HOOKS: [(&str, bpf_attach_type); 9] = [
    ("connect4", bpf_attach_type::BPF_CGROUP_INET4_CONNECT),
    ("connect6", bpf_attach_type::BPF_CGROUP_INET6_CONNECT),
    ("sendmsg4", bpf_attach_type::BPF_CGROUP_UDP4_SENDMSG),
    ("sendmsg6", bpf_attach_type::BPF_CGROUP_UDP6_SENDMSG),
    ("recvmsg4", bpf_attach_type::BPF_CGROUP_UDP4_RECVMSG),
    ("recvmsg6", bpf_attach_type::BPF_CGROUP_UDP6_RECVMSG),
    (
        "getpeername4",
        bpf_attach_type::BPF_CGROUP_INET4_GETPEERNAME,
    ),
    (
        "getpeername6",
        bpf_attach_type::BPF_CGROUP_INET6_GETPEERNAME,
    ),
    ("tcp", bpf_attach_type::BPF_CGROUP_SOCK_OPS),
];

pub(crate) const PACKET_HOOKS: [&str; 4] = [FROM_POD, FROM_OUTSIDE, TO_OUTSIDE, TO_POD];

/// What the kernel says of one of our programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    pub name: &'static str,
    /// Instructions that the verifier walked through, if the kernel says (Linux
    /// 5.16).
    pub verified_instructions: Option<u32>,
    /// Counted only while [`super::enable_stats`]'s descriptor is open.
    pub runs: u64,
    pub run_time_ns: u64,
}

/// A loaded program.
#[derive(Debug)]
pub(crate) struct Program {
    fd: OwnedFd,
    pub(crate) id: u32,
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// All programs, by name.
#[derive(Debug)]
pub(crate) struct Programs(Vec<(&'static str, Program)>);

impl Programs {
    /// Identity of what [`Programs::load`] would load.
    pub(crate) fn digest(constants: &Constants) -> u64 {
        // FNV-1a: it tells versions apart, nobody is kept out by it.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        let constants = bytes_of(constants);
        let bytes = OBJECT.0.iter().chain(&constants);
        bytes.fold(0xcbf2_9ce4_8422_2325, step)
    }

    /// Loads all programs over these tables.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with what the verifier said if it was that.
    pub(crate) fn load(maps: &Maps, constants: &Constants) -> Result<Self, Error> {
        let mut object = Object::parse(&OBJECT.0).map_err(broken)?;
        let constants = bytes_of(constants);
        object
            .patch_map_data(HashMap::from([("CONFIG", (constants.as_slice(), true))]))
            .map_err(broken)?;
        apart::mark(&mut object);
        let data = link(&mut object, maps)?;
        let types = apart::types()
            .map_err(|error| refused("load the types of the programs' functions", error, ""))?;
        let programs = load_all(&object, types.as_fd());
        // Programs hold what they use of it.
        drop(data);
        programs.map(Self)
    }

    /// The pinned programs, if all are there.
    pub(crate) fn adopt(pins: &Pins) -> Result<Option<Self>, Error> {
        let mut programs = Vec::new();
        for name in SOCKET_HOOKS
            .into_iter()
            .map(|(name, _)| name)
            .chain(PACKET_HOOKS)
        {
            let Some(fd) = pins.get(&pin(name))? else {
                return Ok(None);
            };
            programs.push((name, Program::new(name, fd)?));
        }
        Ok(Some(Self(programs)))
    }

    pub(crate) fn pin(&self, pins: &Pins) -> Result<(), Error> {
        pins.remove(&pin(FROM_POD_PORTS))?;
        self.0
            .iter()
            .try_for_each(|(name, program)| pins.put(&pin(name), program))
    }

    /// # Panics
    /// If there is no such program: names are ours.
    pub(crate) fn get(&self, name: &str) -> &Program {
        let found = self.0.iter().find(|(known, _)| *known == name);
        &found.unwrap_or_else(|| panic!("no program {name}")).1
    }

    pub(crate) fn stats(&self) -> io::Result<Vec<ProgramStats>> {
        let stats = |(name, program): &(&'static str, Program)| {
            let info = sys::prog_info(program.as_fd())?;
            Ok(ProgramStats {
                name,
                verified_instructions: Some(info.verified_insns).filter(|count| *count > 0),
                runs: info.run_cnt,
                run_time_ns: info.run_time_ns,
            })
        };
        self.0.iter().map(stats).collect()
    }
}

impl Program {
    fn new(name: &str, fd: OwnedFd) -> Result<Self, Error> {
        let info = sys::prog_info(fd.as_fd()).map_err(|source| Error::Kernel {
            operation: format!("read what program {name} is"),
            source,
        })?;
        Ok(Self { fd, id: info.id })
    }
}

pub(crate) fn pin(name: &str) -> String {
    format!("prog_{name}")
}

/// As they lie in the programs' read-only data.
fn bytes_of(constants: &Constants) -> [u8; size_of::<Constants>()] {
    let Constants {
        node_netns,
        ports,
        own_ports,
        says_why,
        reserved: _,
    } = *constants;
    let mut bytes = [0; size_of::<Constants>()];
    bytes[..8].copy_from_slice(&node_netns.to_ne_bytes());
    let numbers = [ports, own_ports].into_iter().flat_map(|ports| {
        let gaps = ports
            .gaps
            .into_iter()
            .flat_map(|gap| [gap.first, gap.count]);
        [ports.first, ports.count].into_iter().chain(gaps)
    });
    for (place, number) in bytes[8..40].chunks_exact_mut(2).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    bytes[40..44].copy_from_slice(&says_why.to_ne_bytes());
    bytes
}

/// Puts the descriptors of the tables into the code. Gives those that only the
/// code needs: the constants.
fn link(object: &mut Object, maps: &Maps) -> Result<Vec<OwnedFd>, Error> {
    let definitions = object.maps.clone();
    let mut data = Vec::new();
    let mut fds = Vec::new();
    for (name, map) in &definitions {
        let fd = if maps::all().any(|known| known == name.as_str()) {
            maps.get(name).as_raw_fd()
        } else {
            data.push(constants(name, map)?);
            data[data.len() - 1].as_raw_fd()
        };
        fds.push((name.as_str(), fd, map));
    }
    let text: HashSet<usize> = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    object
        .relocate_maps(fds.into_iter(), &text)
        .map_err(broken)?;
    object.relocate_calls(&text).map_err(broken)?;
    Ok(data)
}

/// A map of read-only data, which the verifier takes for constants.
fn constants(name: &str, map: &aya_obj::Map) -> Result<OwnedFd, Error> {
    let shape = MapShape {
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
    };
    let make = || {
        let created = sys::map_create(name.trim_start_matches('.'), &shape, None)?;
        // SAFETY: the section's data is the map's only value.
        unsafe { sys::map_update_bytes(created.as_fd(), 0, map.data())? };
        sys::map_freeze(created.as_fd())?;
        Ok(created)
    };
    make().map_err(|source| refused(&format!("create {name}"), source, ""))
}

/// Each packet program by a thread of its own: the verifier takes tens of
/// milliseconds for one, and as many of them at once as there are CPUs.
fn load_all(object: &Object, types: BorrowedFd<'_>) -> Result<Vec<(&'static str, Program)>, Error> {
    thread::scope(|scope| {
        let packet: Vec<_> = PACKET_HOOKS
            .into_iter()
            .map(|name| {
                (
                    name,
                    scope.spawn(move || load_one(object, types, name, None)),
                )
            })
            .collect();
        let mut programs = Vec::new();
        for (name, attach) in SOCKET_HOOKS {
            programs.push((name, load_one(object, types, name, Some(attach))?));
        }
        for (name, loading) in packet {
            // A panic there is one here.
            let loaded = loading.join().unwrap_or_else(|panic| resume_unwind(panic));
            programs.push((name, loaded?));
        }
        Ok(programs)
    })
}

fn load_one(
    object: &Object,
    types: BorrowedFd<'_>,
    name: &'static str,
    attach: Option<bpf_attach_type>,
) -> Result<Program, Error> {
    let program = object
        .programs
        .get(name)
        .ok_or_else(|| broken(format!("it has no program {name}")))?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(|| broken(format!("program {name} has no code")))?;
    let kind = match attach {
        Some(bpf_attach_type::BPF_CGROUP_SOCK_OPS) => bpf_prog_type::BPF_PROG_TYPE_SOCK_OPS,
        Some(_) => bpf_prog_type::BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        None => bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
    };
    // A signal stops the verifier; the kernel says to try again.
    const ATTEMPTS: u32 = 10;
    let load = |log: &mut [u8]| {
        let mut attempt = 1;
        loop {
            let (code, license) = (&function.instructions, &program.license);
            let functions = Some((types, function.func_info.func_info.as_slice()));
            match sys::prog_load(name, kind, attach, code, license, functions, log) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempt < ATTEMPTS => {
                    attempt += 1;
                }
                other => return other,
            }
        }
    };
    // The log costs time, so it is asked for only when it is needed.
    let loaded = load(&mut []).or_else(|first| {
        let mut log = vec![0; 1 << 20];
        load(&mut log).map_err(|_| {
            let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
            refused(
                &format!("load {name}"),
                first,
                &String::from_utf8_lossy(&log[..end]),
            )
        })
    })?;
    Program::new(name, loaded)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Unsupported {
        reason: format!("the object of the kernel programs is broken: {error}"),
    }
}

/// The kernel's no, with the likely cause.
pub(crate) fn refused(operation: &str, error: io::Error, verifier: &str) -> Error {
    let cause = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "; it takes CAP_BPF and CAP_NET_ADMIN in the machine's own user namespace".to_owned()
        }
        Some(libc::ENOSYS) => "; the kernel is built without CONFIG_BPF_SYSCALL".to_owned(),
        _ => verifier
            .lines()
            .rfind(|line| !line.is_empty() && !line.starts_with("processed "))
            .map(|line| format!("; the verifier says: {line}"))
            .unwrap_or_default(),
    };
    Error::Unsupported {
        reason: format!("{operation}: {error}{cause}"),
    }
}
