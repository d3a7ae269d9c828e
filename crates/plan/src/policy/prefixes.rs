//! Addresses by prefix: which peers each matches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::compile::ClassContent;
use super::id::{ClassId, PeersId};
use super::peers::Block;

/// A prefix of one family, in an order in which what is inside of a prefix comes
/// right after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    is_v4: bool,
    /// From the highest bit down; zero after the prefix.
    bits: u128,
    len: u8,
}

impl Prefix {
    pub(super) const ALL_V4: Self = Self {
        is_v4: true,
        bits: 0,
        len: 0,
    };
    pub(super) const ALL_V6: Self = Self {
        is_v4: false,
        bits: 0,
        len: 0,
    };

    fn shortened(self, len: u8) -> Self {
        let bits = self.bits & mask(len);
        Self { bits, len, ..self }
    }

    fn last(self) -> Self {
        let bits = self.bits | !mask(self.len);
        Self {
            bits,
            len: u8::MAX,
            ..self
        }
    }

    pub(super) fn is_everything(self) -> bool {
        self.len == 0
    }

    fn contains(self, other: Self) -> bool {
        self.is_v4 == other.is_v4 && self.len <= other.len && other.shortened(self.len) == self
    }

    pub(super) fn base(self) -> ClassId {
        ClassId::base(self.is_v4)
    }

    pub(super) fn net(self) -> Option<IpNet> {
        let address: IpAddr = match self.is_v4 {
            true => Ipv4Addr::from(u32::try_from(self.bits >> 96).ok()?).into(),
            false => Ipv6Addr::from(self.bits).into(),
        };
        IpNet::new(address, self.len).ok()
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        let (is_v4, bits) = match net.addr() {
            IpAddr::V4(v4) => (true, u128::from(u32::from(v4)) << 96),
            IpAddr::V6(v6) => (false, u128::from(v6)),
        };
        let len = net.prefix_len();
        Self { is_v4, bits, len }.shortened(len)
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        IpNet::from(address).into()
    }
}

/// Those that are inside of no other.
pub(super) fn outermost(prefixes: &BTreeSet<Prefix>) -> Vec<Prefix> {
    let mut outer: Vec<Prefix> = Vec::new();
    for prefix in prefixes {
        if outer.last().is_none_or(|last| !last.contains(*prefix)) {
            outer.push(*prefix);
        }
    }
    outer
}

/// Who is at exactly this address.
pub(super) type Host = Arc<ClassContent>;

#[derive(Clone, Debug, Default)]
struct Node {
    /// Peers whose blocks begin (positive) or have an exception (negative) here,
    /// with how many. Sorted, without zeros.
    blocks: Vec<(PeersId, i32)>,
    host: Option<Host>,
    class: Option<ClassId>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.host.is_none()
    }
}

/// Every prefix at which something begins or ends. That of all addresses is
/// always there, one for each family.
#[derive(Clone, Debug)]
pub(super) struct Prefixes {
    nodes: BTreeMap<Prefix, Node>,
    /// How many prefixes there are, by family and length: the lengths to try.
    lengths: [[u32; 129]; 2],
}

impl Default for Prefixes {
    fn default() -> Self {
        let mut prefixes = Self {
            nodes: BTreeMap::new(),
            lengths: [[0; 129]; 2],
        };
        for all in [Prefix::ALL_V4, Prefix::ALL_V6] {
            prefixes.node(all).class = Some(all.base());
        }
        prefixes
    }
}

impl Prefixes {
    /// Adds a block of peers, or takes it away; gives the ranges that this is
    /// about.
    pub(super) fn block(&mut self, block: &Block, peers: PeersId, add: bool) -> Prefix {
        let sign = if add { 1 } else { -1 };
        let whole = Prefix::from(block.cidr);
        self.count(whole, peers, sign);
        for except in &block.except {
            self.count((*except).into(), peers, -sign);
        }
        whole
    }

    /// True if this is news.
    pub(super) fn set_host(&mut self, address: IpAddr, host: Option<&Host>) -> bool {
        let at = Prefix::from(address);
        match (host, self.nodes.get_mut(&at)) {
            (None, None) => return false,
            (None, Some(node)) => {
                if node.host.take().is_none() {
                    return false;
                }
            }
            (Some(host), _) => {
                let node = self.node(at);
                if node.host.as_ref() == Some(host) {
                    return false;
                }
                node.host = Some(Arc::clone(host));
            }
        }
        true
    }

    /// A prefix and everything inside of it.
    pub(super) fn inside(&self, prefix: Prefix) -> impl Iterator<Item = Prefix> {
        self.nodes.range(prefix..=prefix.last()).map(|(at, _)| *at)
    }

    /// Addresses at which one of these is not because of a block.
    pub(super) fn hosts_with(&self, peers: &BTreeSet<PeersId>) -> Vec<IpAddr> {
        let is_one = |host: &Host| host.peers.iter().any(|one| peers.contains(one));
        let hosts = self
            .nodes
            .iter()
            .filter(|(_, node)| node.host.as_ref().is_some_and(is_one));
        hosts
            .filter_map(|(at, _)| at.net().map(|net| net.addr()))
            .collect()
    }

    /// What the addresses of a prefix match, as far as no longer prefix says
    /// something else.
    pub(super) fn content(&self, prefix: Prefix) -> ClassContent {
        let mut counts: Vec<(PeersId, i32)> = Vec::new();
        for (_, node) in self.around(prefix) {
            counts.extend(&node.blocks);
        }
        let mut content = ClassContent::default();
        let own = self.nodes.get(&prefix);
        counts.extend(own.into_iter().flat_map(|node| &node.blocks));
        counts.sort_unstable_by_key(|(peers, _)| *peers);
        for same in counts.chunk_by(|a, b| a.0 == b.0) {
            if same.iter().map(|(_, count)| count).sum::<i32>() > 0 {
                content.peers.push(same[0].0);
            }
        }
        if let Some(host) = own.and_then(|node| node.host.as_ref()) {
            content.peers.extend(&host.peers);
            content.peers.sort_unstable();
            content.peers.dedup();
            content.ports.clone_from(&host.ports);
        }
        content
    }

    pub(super) fn class(&self, prefix: Prefix) -> Option<ClassId> {
        self.nodes.get(&prefix)?.class
    }

    pub(super) fn set_class(&mut self, prefix: Prefix, class: ClassId) {
        if let Some(node) = self.nodes.get_mut(&prefix) {
            node.class = Some(class);
        }
    }

    /// Class of the next shorter prefix.
    pub(super) fn class_around(&self, prefix: Prefix) -> Option<ClassId> {
        self.around(prefix).next()?.1.class
    }

    /// Forgets a prefix at which nothing is any more; `None` if something is.
    /// The class that it had.
    pub(super) fn forget(&mut self, prefix: Prefix) -> Option<Option<ClassId>> {
        if prefix.len == 0 || !self.nodes.get(&prefix)?.is_empty() {
            return None;
        }
        self.lengths[usize::from(prefix.is_v4)][usize::from(prefix.len)] -= 1;
        self.nodes.remove(&prefix).map(|node| node.class)
    }

    /// The prefixes that are around one, the longest first.
    fn around(&self, prefix: Prefix) -> impl Iterator<Item = (Prefix, &Node)> {
        let lengths = &self.lengths[usize::from(prefix.is_v4)];
        (0..prefix.len)
            .rev()
            .filter(|len| lengths[usize::from(*len)] > 0)
            .filter_map(move |len| {
                let at = prefix.shortened(len);
                Some((at, self.nodes.get(&at)?))
            })
    }

    fn count(&mut self, at: Prefix, peers: PeersId, change: i32) {
        let blocks = &mut self.node(at).blocks;
        match blocks.binary_search_by_key(&peers, |(id, _)| *id) {
            Err(index) => blocks.insert(index, (peers, change)),
            Ok(index) => {
                blocks[index].1 += change;
                if blocks[index].1 == 0 {
                    blocks.remove(index);
                }
            }
        }
    }

    fn node(&mut self, at: Prefix) -> &mut Node {
        let lengths = &mut self.lengths[usize::from(at.is_v4)];
        self.nodes.entry(at).or_insert_with(|| {
            lengths[usize::from(at.len)] += 1;
            Node::default()
        })
    }
}
