//! BPF programs at the ends of interfaces, as filters of the `clsact` qdisc
//! (tc-bpf(8)).
//!
//! Not tcx links: making one waits for a grace period of the kernel (10 to 20 ms)
//! with the lock held that every change of an interface takes, which would be
//! most of the time that attaching a pod takes. A filter is there in 30 µs on
//! every kernel since 4.5, and ends with its interface.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::RouteNetlinkMessage as Rtnl;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::attributes::{Message, attributes, u32_at, u32_value};
use super::{Error, Netlink, Request};

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
/// `struct tcmsg`.
const HEADER: usize = 20;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
/// `htons(ETH_P_ALL)`.
const ALL_PROTOCOLS: u32 = 0x0003_u16.to_be() as u32;
/// Where in the order of an interface's filters ours are: rather late, so that
/// those of others see what they saw before.
const PRIORITY: u16 = 0x5253;
const HANDLE: u32 = 1;

/// Of two programs of ours at one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one that there always is.
    First,
    /// Gets what the first one leaves to others.
    Second,
}

impl Place {
    const fn priority(self) -> u16 {
        match self {
            Self::First => PRIORITY,
            Self::Second => PRIORITY + 1,
        }
    }
}

/// Where at an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What comes in by it.
    Ingress,
    /// What goes out by it.
    Egress,
}

/// Makes an interface able to have programs. Call with
/// [`Request::unless_exists`]: it may be able to already.
pub fn prepare(index: u32) -> Request {
    Request::create(
        Rtnl::NewQueueDiscipline(clsact(index)),
        format!("add clsact qdisc to interface {index}"),
    )
}

/// Undoes [`prepare`], with every program that is there.
pub fn unprepare(index: u32) -> Request {
    Request::change(
        Rtnl::DelQueueDiscipline(clsact(index)),
        format!("remove clsact qdisc of interface {index}"),
    )
}

fn clsact(index: u32) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message.header.parent = TcHandle::CLSACT;
    message
        .attributes
        .push(TcAttribute::Kind("clsact".to_owned()));
    message
}

/// Puts `program` at that hook of a [prepared](prepare) interface. A program of
/// ours that is there already is replaced; no packet goes by in between.
pub fn attach(index: u32, hook: Hook, program: BorrowedFd<'_>, name: &str) -> Request {
    attach_at(index, hook, Place::First, program, name)
}

/// As [`attach`], at one of two places.
pub fn attach_at(
    index: u32,
    hook: Hook,
    place: Place,
    program: BorrowedFd<'_>,
    name: &str,
) -> Request {
    let mut message = filter(index, hook, place);
    message.header.handle = TcHandle::from(HANDLE);
    let options = [
        TcFilterBpfOption::ProgFd(program.as_raw_fd().cast_unsigned()),
        TcFilterBpfOption::ProgName(name.to_owned()),
        // What the program returns is what is done.
        TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
    ];
    message.attributes.extend([
        TcAttribute::Kind(TcFilterBpf::KIND.to_owned()),
        TcAttribute::Options(options.map(TcOption::Bpf).into()),
    ]);
    Request::replace(
        Rtnl::NewTrafficFilter(message),
        format!("attach program {name} to interface {index}"),
    )
}

/// Takes our program away from that hook of an interface.
pub fn detach(index: u32, hook: Hook) -> Request {
    detach_at(index, hook, Place::First)
}

/// As [`detach`], from one of two places.
pub fn detach_at(index: u32, hook: Hook, place: Place) -> Request {
    Request::change(
        Rtnl::DelTrafficFilter(filter(index, hook, place)),
        format!("detach the program of interface {index}"),
    )
}

/// Our place at that hook of an interface.
fn filter(index: u32, hook: Hook, place: Place) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.parent = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: match hook {
            Hook::Ingress => TcHandle::MIN_INGRESS,
            Hook::Egress => TcHandle::MIN_EGRESS,
        },
    };
    message.header.info = u32::from(place.priority()) << 16 | ALL_PROTOCOLS;
    message
}

impl Netlink {
    /// The kernel's number for our program at that hook of an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn program(&mut self, index: u32, hook: Hook) -> Result<Option<u32>, Error> {
        self.program_at(index, hook, Place::First)
    }

    /// As [`Netlink::program`], at one of two places.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn program_at(
        &mut self,
        index: u32,
        hook: Hook,
        place: Place,
    ) -> Result<Option<u32>, Error> {
        let request = Rtnl::GetTrafficFilter(filter(index, hook, place));
        let request = Request::dump(request, "list filters");
        let found = self.dump(&request, |message| read(message, index, place))?;
        Ok(found.into_iter().next())
    }
}

impl Netlink {
    /// Whether somebody has [prepared](prepare) an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn is_prepared(&mut self, index: u32) -> Result<bool, Error> {
        let all = TcMessage::with_index(index.cast_signed());
        let request = Request::dump(Rtnl::GetQueueDiscipline(all), "list queue disciplines");
        let is_there = |message: Message<'_>| {
            let here = u32_at(message.payload, 4)? == index;
            let parent = u32_at(message.payload, 12)?;
            let found =
                message.kind == RTM_NEWQDISC && here && parent == u32::from(TcHandle::CLSACT);
            found.then_some(())
        };
        Ok(!self.dump(&request, is_there)?.is_empty())
    }

    /// Whether anybody has a filter at that hook of an interface.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn has_filters(&mut self, index: u32, hook: Hook) -> Result<bool, Error> {
        let mut all = filter(index, hook, Place::First);
        all.header.info = 0;
        let request = Request::dump(Rtnl::GetTrafficFilter(all), "list filters");
        let is_there = |message: Message<'_>| {
            let here = u32_at(message.payload, 4)? == index;
            (message.kind == RTM_NEWTFILTER && here).then_some(())
        };
        Ok(!self.dump(&request, is_there)?.is_empty())
    }
}

/// `None` if it is no program of ours on this interface.
fn read(message: Message<'_>, index: u32, place: Place) -> Option<u32> {
    let ours = message.kind == RTM_NEWTFILTER
        && u32_at(message.payload, 4)? == index
        && u32_at(message.payload, 8)? == HANDLE
        && u32_at(message.payload, 16)? >> 16 == u32::from(place.priority());
    if !ours {
        return None;
    }
    let options = attributes(message.payload.get(HEADER..)?)
        .find(|(kind, _)| *kind == TCA_OPTIONS)
        .map(|(_, value)| value)?;
    attributes(options)
        .find(|(kind, _)| *kind == TCA_BPF_ID)
        .and_then(|(_, value)| u32_value(value))
}
