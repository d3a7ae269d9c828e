//! One transaction, in the making.

use super::set::user_data;
use super::{Element, Expression, INET, SUBSYSTEM, SetSpec, message};
use crate::write::{Attributes, LONGEST, netfilter_message as emit};

const REQUEST: u16 = 0x1;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// Room that an element list leaves for the attribute that did not fit.
const LIST_LIMIT: usize = LONGEST - 2048;

/// Where a base chain meets packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub point: HookPoint,
    /// Lower ones come first.
    pub priority: i32,
    /// `nat` sees the first packet of each flow alone.
    pub nat: bool,
}

/// A request of the batch and its name for error messages.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) body: Attributes,
    pub(super) operation: String,
}

/// Requests of one transaction on one table of both families.
#[derive(Clone, Debug)]
pub struct Batch {
    table: String,
    pub(super) messages: Vec<Message>,
    sets: u32,
    bytes: usize,
}

impl Batch {
    pub fn new(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            messages: Vec::new(),
            sets: 0,
            bytes: 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes that it takes in the socket, about.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// The table; one that is there already stays as it is.
    pub fn create_table(&mut self, comment: &str) {
        let mut body = self.body();
        body.bytes(6, &user_data(comment));
        self.push(message::NEW_TABLE, CREATE, body, "create table");
    }

    /// The table with everything in it.
    pub fn delete_table(&mut self) {
        self.push(message::DELETE_TABLE, 0, self.body(), "delete table");
    }

    pub fn create_chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut body = self.body();
        body.text(3, name);
        if let Some(Hook {
            point,
            priority,
            nat,
        }) = hook
        {
            // enum nf_inet_hooks
            let number = match point {
                HookPoint::Prerouting => 0,
                HookPoint::Input => 1,
                HookPoint::Forward => 2,
                HookPoint::Output => 3,
                HookPoint::Postrouting => 4,
            };
            body.nested(4, |hook| {
                hook.u32(1, number).u32(2, priority.cast_unsigned());
            })
            .text(7, if nat { "nat" } else { "filter" });
        }
        self.push(
            message::NEW_CHAIN,
            CREATE,
            body,
            &format!("create chain {name}"),
        );
    }

    /// The chain and its rules; nothing may lead there any more.
    pub fn delete_chain(&mut self, name: &str) {
        let mut body = self.body();
        body.text(3, name);
        self.push(
            message::DELETE_CHAIN,
            0,
            body,
            &format!("delete chain {name}"),
        );
    }

    /// All rules of a chain.
    pub fn flush_chain(&mut self, name: &str) {
        let mut body = self.body();
        body.text(2, name);
        self.push(
            message::DELETE_RULE,
            0,
            body,
            &format!("flush chain {name}"),
        );
    }

    /// A rule after those that the chain has.
    pub fn add_rule(&mut self, chain: &str, comment: &str, expressions: &[Expression]) {
        let mut body = self.body();
        body.text(2, chain)
            .nested(4, |list| {
                for expression in expressions {
                    // NFTA_LIST_ELEM
                    list.nested(1, |to| expression.write(to));
                }
            })
            .bytes(7, &user_data(comment));
        let operation = format!("rule {comment:?} of chain {chain}");
        self.push(message::NEW_RULE, CREATE | APPEND, body, &operation);
    }

    pub fn create_set(&mut self, spec: &SetSpec) {
        self.sets += 1;
        let mut body = Attributes::default();
        spec.write(&self.table, self.sets, &mut body);
        self.push(
            message::NEW_SET,
            CREATE,
            body,
            &format!("create set {}", spec.name),
        );
    }

    pub fn add_elements<'e>(&mut self, set: &str, elements: impl IntoIterator<Item = &'e Element>) {
        let operation = format!("add elements to {set}");
        self.elements(
            message::NEW_ELEMENT,
            CREATE,
            set,
            elements,
            true,
            &operation,
        );
    }

    /// Elements that are there.
    pub fn delete_elements<'e>(
        &mut self,
        set: &str,
        elements: impl IntoIterator<Item = &'e Element>,
    ) {
        let operation = format!("delete elements of {set}");
        self.elements(message::DELETE_ELEMENT, 0, set, elements, false, &operation);
    }

    /// All elements of a set.
    pub fn flush_set(&mut self, set: &str) {
        let mut body = self.body();
        body.text(2, set);
        let operation = format!("flush set {set}");
        self.push(message::DELETE_ELEMENT, 0, body, &operation);
    }

    /// As many messages as the elements need: a list of attributes has a limit.
    fn elements<'e>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl IntoIterator<Item = &'e Element>,
        whole: bool,
        operation: &str,
    ) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let mut body = Attributes::default();
            body.text(1, &self.table).text(2, set).nested(3, |list| {
                let start = list.len();
                while list.len() - start < LIST_LIMIT
                    && let Some(element) = elements.next()
                {
                    element.write(list, whole);
                }
            });
            self.push(kind, flags, body, operation);
        }
    }

    /// Begins with the table's name, which is attribute 1 of every object.
    fn body(&self) -> Attributes {
        let mut body = Attributes::default();
        body.text(1, &self.table);
        body
    }

    fn push(&mut self, kind: u16, flags: u16, body: Attributes, operation: &str) {
        // Headers: struct nlmsghdr and struct nfgenmsg.
        self.bytes += 20 + body.len();
        self.messages.push(Message {
            kind,
            flags: REQUEST | flags,
            body,
            operation: format!("nftables: {operation}"),
        });
    }
}

/// The whole transaction as the kernel gets it; the last request asks for an
/// answer. The first one has the sequence number after `first`.
pub(super) fn transaction(batch: &Batch, first: u32) -> Vec<u8> {
    /// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`.
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    const ACKNOWLEDGE: u16 = 0x4;
    let mut bytes = Vec::with_capacity(batch.bytes + 64);
    emit(&mut bytes, BEGIN, REQUEST, first, (0, SUBSYSTEM), &[]);
    let mut sequence = first;
    let last = batch.messages.len().saturating_sub(1);
    for (index, message) in batch.messages.iter().enumerate() {
        sequence = sequence.wrapping_add(1);
        let flags = message.flags | if index == last { ACKNOWLEDGE } else { 0 };
        let kind = SUBSYSTEM << 8 | message.kind;
        emit(
            &mut bytes,
            kind,
            flags,
            sequence,
            (INET, 0),
            message.body.as_bytes(),
        );
    }
    emit(
        &mut bytes,
        END,
        REQUEST,
        sequence.wrapping_add(1),
        (0, SUBSYSTEM),
        &[],
    );
    bytes
}
