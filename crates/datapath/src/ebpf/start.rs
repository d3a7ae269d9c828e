//! How an engine begins: with what is in the kernel already, of this version or
//! of another one, or from nothing.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use ripstop_abi::{Config as Constants, SCHEMA};
use ripstop_netlink::Netlink;

use super::config::{Config, Limits};
use super::frontends::Frontends;
use super::links::{self, Cgroup};
use super::maps::{Maps, State};
use super::old::OldTables;
use super::pins::Pins;
use super::policy::{self, Policies};
use super::programs::Programs;
use super::readback::Scope;
use super::upgrade::{self, Upgrade};
use super::{EbpfEngine, flows, retire, sys};
use crate::Error;

/// Whose programs are attached where ours should be.
#[derive(Debug)]
pub(super) enum Takeover {
    /// Nobody's.
    None,
    /// Those of tables that we can read.
    Of(OldTables),
    /// Those of tables that nobody can read any more.
    OfUnknown,
}

impl EbpfEngine {
    /// Loads the programs, or takes over what an earlier engine left.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the kernel, or what this process may do, is not
    /// enough; nothing is attached then.
    pub fn open(config: Config) -> Result<Self, Error> {
        let pins = Pins::open(&config.bpffs)?;
        let cgroup = Cgroup::open(&config.cgroup_root)?;
        let Start {
            maps,
            programs,
            state,
            found,
        } = Start::find(&pins, &config.limits)?;
        let adopted = !matches!(found, Found::Nothing);
        let mut engine = Self {
            takeover: Takeover::None,
            state,
            handing_over: false,
            frontends: Frontends::default(),
            policies: if adopted {
                Policies::default()
            } else {
                Policies::of_new_tables()
            },
            _collector: policy::collect(&maps.policy)?,
            _sharing: flows::share_out(&maps)?,
            pods: BTreeMap::new(),
            stranding_said: false,
            config,
            pins,
            cgroup,
            netlink: Netlink::new().map_err(|error| Error::Kernel {
                operation: "open a netlink socket".into(),
                source: io::Error::other(error),
            })?,
            programs,
            maps,
            adopted,
        };
        engine.read_back(Scope::All)?;
        // Who was in the middle of it is gone.
        retire::take_over(&engine.maps, false)?;
        retire::share_ports(&engine.maps, false)?;
        match found {
            Found::Ours => upgrade::tidy(&engine.pins, &mut engine.netlink)?,
            Found::Nothing if links::are_there(&engine.pins)? => {
                engine.takeover = Takeover::OfUnknown;
            }
            Found::Nothing => {}
            Found::Old {
                tables,
                is_complete,
            } => {
                // Marks of an engine that did not come to its end.
                retire::resume(&engine.maps)?;
                engine.takeover = Takeover::Of(tables);
                if !is_complete {
                    return Ok(engine);
                }
                engine.take_over()?;
            }
        }
        if let Takeover::None = engine.takeover {
            engine.attach_links()?;
        }
        // Last: from here on the pins are a whole.
        engine.state.write(&engine.pins)?;
        Ok(engine)
    }

    /// Our programs take over from those of another version, if there are any.
    pub(super) fn take_over(&mut self) -> Result<(), Error> {
        let Takeover::Of(old) = std::mem::replace(&mut self.takeover, Takeover::None) else {
            return Ok(());
        };
        let started = Instant::now();
        let mut upgrade = Upgrade {
            pins: &self.pins,
            cgroup: &self.cgroup,
            netlink: &mut self.netlink,
            programs: &self.programs,
            maps: &mut self.maps,
            limits: &self.config.limits,
        };
        if let Err(error) = upgrade.carry_out(&old) {
            self.takeover = Takeover::Of(old);
            return Err(error);
        }
        tracing::info!(
            millis = started.elapsed().as_millis(),
            "took over from the programs and tables of another version"
        );
        self.state.write(&self.pins)
    }

    /// Socket and uplink programs on their places; gives what was not.
    pub(super) fn attach_links(&mut self) -> Result<Vec<String>, Error> {
        let mut attached = Vec::new();
        if !self.handing_over {
            attached = links::sockets(&self.pins, &self.programs, &self.cgroup)?;
        }
        for ifindex in &self.config.uplinks {
            if links::uplink(&mut self.netlink, &self.programs, *ifindex)? {
                attached.push(format!("program on uplink {ifindex}"));
            }
        }
        attached.extend(self.write_uplinks()?);
        retire::resume(&self.maps)?;
        Ok(attached)
    }

    /// What is in the kernel's tables becomes what counts as applied.
    pub(super) fn read_back(&mut self, scope: Scope) -> Result<(), Error> {
        self.frontends = Frontends::read(&self.maps)?;
        self.maps.endpoints.read()?;
        self.maps.routes.read()?;
        self.maps.ranges.read()?;
        self.maps.uplinks.read()?;
        self.policies = Policies::read(&mut self.maps.policy, &self.policies, scope)?;
        Ok(())
    }
}

/// What an engine begins with.
struct Start {
    maps: Maps,
    programs: Programs,
    state: State,
    found: Found,
}

/// What an engine found in the kernel.
enum Found {
    Nothing,
    /// Tables as this version makes them.
    Ours,
    /// Those of another version, carried over into new ones.
    Old {
        tables: OldTables,
        /// The new tables have everything that programs look up.
        is_complete: bool,
    },
}

impl Start {
    /// Tables and programs. What is pinned and attached changes only once the
    /// kernel has taken our programs.
    fn find(pins: &Pins, limits: &Limits) -> Result<Self, Error> {
        let constants = constants()?;
        let state = State {
            schema: SCHEMA.into(),
            digest: Programs::digest(&constants),
        };
        if let Some(maps) = Maps::adopt(pins, limits)? {
            let programs = load_or_adopt(pins, &maps, &constants, state)?;
            return Ok(Self {
                maps,
                programs,
                state,
                found: Found::Ours,
            });
        }
        if let Some(tables) = OldTables::find(pins)? {
            let maps = Maps::create_beside(limits, &tables)?;
            let programs = Programs::load(&maps, &constants)?;
            let is_complete = tables.carry_all(&maps, limits)?;
            return Ok(Self {
                maps,
                programs,
                state,
                found: Found::Old {
                    tables,
                    is_complete,
                },
            });
        }
        let maps = Maps::create(&limits.at_first())?;
        let programs = Programs::load(&maps, &constants)?;
        maps.pin(pins)?;
        programs.pin(pins)?;
        Ok(Self {
            maps,
            programs,
            state,
            found: Found::Nothing,
        })
    }
}

/// The pinned programs if they are what would be loaded, else newly loaded ones
/// over the same tables.
fn load_or_adopt(
    pins: &Pins,
    maps: &Maps,
    constants: &Constants,
    wanted: State,
) -> Result<Programs, Error> {
    if State::read(pins)? == Some(wanted)
        && let Some(programs) = Programs::adopt(pins)?
    {
        return Ok(programs);
    }
    let programs = Programs::load(maps, constants)?;
    // The pins are a mixture until the record is written again.
    State {
        digest: 0,
        ..wanted
    }
    .write(pins)?;
    programs.pin(pins)?;
    Ok(programs)
}

/// What the programs are told of this node.
pub(super) fn constants() -> Result<Constants, Error> {
    let [ports, own_ports] = crate::ports::of_ebpf();
    Ok(Constants {
        ports,
        own_ports,
        says_why: sys::has_set_retval().into(),
        reserved: 0,
        node_netns: node_netns()?,
    })
}

fn node_netns() -> Result<u64, Error> {
    sys::netns_cookie().map_err(|source| match source.raw_os_error() {
        Some(libc::ENOPROTOOPT) => Error::Unsupported {
            reason: "it does not tell network namespaces apart (SO_NETNS_COOKIE): Linux 5.14 or \
                     newer"
                .into(),
        },
        _ => Error::Kernel {
            operation: "read the cookie of the network namespace".into(),
            source,
        },
    })
}
