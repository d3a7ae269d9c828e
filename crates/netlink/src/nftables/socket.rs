//! The socket.

use super::batch::transaction;
use super::{Batch, Element, ForeignChain, INET, RuleRead, SUBSYSTEM, UNSPECIFIED, message, read};
use crate::attributes::messages;
use crate::write::{Attributes, netfilter_message as emit};
use crate::{Error, Netlink};

const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
/// What the largest batch may be: the kernel copies it whole.
const LARGEST_BATCH: usize = 256 << 20;
/// Questions that are asked at once: the answers have to fit into the socket's
/// receive buffer (each takes about 1 KiB of 208).
const AT_ONCE: usize = 128;

/// A socket for nf_tables. It stays in the network namespace in which it was
/// opened.
#[derive(Debug)]
pub struct Nftables {
    netlink: Netlink,
    limit: usize,
}

impl Nftables {
    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the kernel has no netfilter.
    pub fn new() -> Result<Self, Error> {
        let netlink = Netlink::netfilter()?;
        let limit = netlink.send_buffer(LARGEST_BATCH)?;
        Ok(Self { netlink, limit })
    }

    /// Bytes that a batch may have ([`Batch::size`]); less in a user namespace.
    pub fn batch_limit(&self) -> usize {
        self.limit
    }

    /// Does all of the batch at once, or nothing of it.
    ///
    /// # Errors
    /// What the kernel said of the first request that it refused.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(batch.messages.len()).unwrap_or(u32::MAX);
        let first = self.netlink.sequences(count + 2);
        self.netlink.send(&transaction(batch, first))?;
        let mut refused = None;
        loop {
            let received = self.netlink.receive_datagram()?;
            for message in messages(received) {
                let index = message.sequence.wrapping_sub(first);
                if message.kind != NLMSG_ERROR || index > count {
                    continue;
                }
                // Number 0, the beginning: the transaction as a whole.
                let operation = match index.checked_sub(1) {
                    Some(index) => batch.messages[index as usize].operation.as_str(),
                    None => "nftables: transaction",
                };
                if let Err(error) = crate::socket::outcome(operation, |_| false, message) {
                    refused.get_or_insert(error);
                }
                if index == count || index == 0 {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// The comment of a table; `None` if there is no such table.
    ///
    /// # Errors
    /// If the kernel refuses, or has no nf_tables.
    pub fn table(&mut self, table: &str) -> Result<Option<String>, Error> {
        let found = self.dump(
            message::GET_TABLE,
            "list tables",
            |_| {},
            |payload| {
                let name = read::name(payload, 1)?;
                (name == table).then(|| read::table_comment(payload))?
            },
        )?;
        Ok(found.into_iter().next())
    }

    /// Names of a table's chains.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn chains(&mut self, table: &str) -> Result<Vec<String>, Error> {
        self.dump(
            message::GET_CHAIN,
            "list chains",
            |_| {},
            |payload| (read::name(payload, 1)? == table).then(|| read::name(payload, 3))?,
        )
    }

    /// Names of a table's sets and maps.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sets(&mut self, table: &str) -> Result<Vec<String>, Error> {
        self.dump(
            message::GET_SET,
            "list sets",
            |_| {},
            |payload| (read::name(payload, 1)? == table).then(|| read::name(payload, 2))?,
        )
    }

    /// The rules of a table, chain by chain in their order.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn rules(&mut self, table: &str) -> Result<Vec<RuleRead>, Error> {
        self.dump(
            message::GET_RULE,
            "list rules",
            |body| {
                body.text(1, table);
            },
            |payload| read::rule(payload, table),
        )
    }

    /// The elements of a set.
    ///
    /// # Errors
    /// If the kernel refuses; there may be no such set.
    pub fn elements(&mut self, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let lists = self.dump(
            message::GET_ELEMENT,
            &format!("list elements of {set}"),
            |body| {
                body.text(1, table).text(2, set);
            },
            |payload| Some(read::elements(payload)),
        )?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// What these keys find in a set, as a packet would: where its elements are
    /// ranges of one field, the beginning of the one that a key is in.
    ///
    /// # Errors
    /// If the kernel refuses. Where there is no such set nothing is found.
    pub fn find(
        &mut self,
        table: &str,
        set: &str,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Option<Element>>, Error> {
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(AT_ONCE) {
            let bodies = keys.iter().map(|key| {
                let mut body = Attributes::default();
                body.text(1, table).text(2, set).nested(3, |list| {
                    Element::key(key.clone()).write(list, false);
                });
                body
            });
            let read = |payload: &[u8]| read::elements(payload).pop();
            found.extend(self.get(message::GET_ELEMENT, "find elements", bodies, read)?);
        }
        Ok(found)
    }

    /// How many elements a set has, or ranges; `None` if the kernel does not say
    /// (6.1 does not, 6.18 does).
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn count(&mut self, table: &str, set: &str) -> Result<Option<u32>, Error> {
        let mut body = Attributes::default();
        body.text(1, table).text(2, set);
        let count = self.get(message::GET_SET, "count elements", [body], read::count)?;
        Ok(count.into_iter().next().flatten())
    }

    /// Asks for single objects, all at once: `None` for those that are not there.
    fn get<T>(
        &mut self,
        kind: u16,
        operation: &str,
        bodies: impl IntoIterator<Item = Attributes>,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<Option<T>>, Error> {
        let first = self.netlink.sequences(0);
        let mut bytes = Vec::new();
        for body in bodies {
            let sequence = self.netlink.sequences(1);
            let kind = SUBSYSTEM << 8 | kind;
            emit(
                &mut bytes,
                kind,
                REQUEST,
                sequence,
                (INET, 0),
                body.as_bytes(),
            );
        }
        let count = self.netlink.sequences(0).wrapping_sub(first) as usize;
        let mut found: Vec<Option<T>> = (0..count).map(|_| None).collect();
        self.netlink.send(&bytes)?;
        let mut answered = 0;
        while answered < count {
            for message in messages(self.netlink.receive_datagram()?) {
                // What an earlier, failed exchange left is far away.
                let index = message.sequence.wrapping_sub(first) as usize;
                let Some(place) = found.get_mut(index) else {
                    continue;
                };
                answered += 1;
                if message.kind == NLMSG_ERROR {
                    let operation = format!("nftables: {operation}");
                    let is_missing = |errno| errno == libc::ENOENT;
                    crate::socket::outcome(&operation, is_missing, message)?;
                } else {
                    *place = read(message.payload);
                }
            }
        }
        Ok(found)
    }

    /// Chains of forwarded packets, in everybody's tables, that drop what their
    /// rules do not accept.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn forward_drops(&mut self) -> Result<Vec<ForeignChain>, Error> {
        self.dump_of(
            UNSPECIFIED,
            message::GET_CHAIN,
            "list chains",
            |_| {},
            read::forward_drop,
        )
    }

    fn dump<T>(
        &mut self,
        kind: u16,
        operation: &str,
        fill: impl FnOnce(&mut Attributes),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        self.dump_of(INET, kind, operation, fill, read)
    }

    fn dump_of<T>(
        &mut self,
        family: u8,
        kind: u16,
        operation: &str,
        fill: impl FnOnce(&mut Attributes),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let mut body = Attributes::default();
        fill(&mut body);
        let kind = SUBSYSTEM << 8 | kind;
        let operation = format!("nftables: {operation}");
        self.netlink.dump_with(
            &operation,
            |buffer, sequence| {
                emit(
                    buffer,
                    kind,
                    REQUEST | DUMP,
                    sequence,
                    (family, 0),
                    body.as_bytes(),
                );
            },
            |message| read(message.payload),
        )
    }
}
