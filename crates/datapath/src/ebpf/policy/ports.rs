//! Tables of verdicts by port: which nodes of the kernel's table are whose.

use std::collections::BTreeMap;

use ripstop_abi::{Outcome, PairRow, PortNode};
use ripstop_plan::policy::{PortTable, PortsId, kernel};

use crate::Error;
use crate::ebpf::table::Mirror;

/// The nodes of one table of verdicts by port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nodes {
    root: u32,
    count: u32,
}

/// Which nodes are whose. A number that was freed is used again only after the
/// change in which it was: until then a packet may be on its way through it.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    tables: BTreeMap<PortsId, Nodes>,
    /// First number of each run that is free, and its length.
    free: BTreeMap<u32, u32>,
    /// All numbers from here on are free.
    end: u32,
    freed: Vec<Nodes>,
}

impl Ports {
    /// As the kernel has them. Nodes that no pair leads to are freed.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn read<'r>(
        nodes: &mut Mirror<u32, PortNode>,
        pairs: impl Iterator<Item = &'r PairRow>,
    ) -> Result<Self, Error> {
        let mut ports = Self::default();
        let mut used: BTreeMap<u32, u32> = BTreeMap::new();
        for row in pairs {
            for root in row.cells.into_iter().filter_map(Outcome::node) {
                if used.contains_key(&root) {
                    continue;
                }
                // A damaged one is no table that anybody wants.
                if let Some((table, count)) =
                    kernel::port_table(root, |at| nodes.rows().get(&at).copied())
                {
                    ports.tables.insert(table.id(), Nodes { root, count });
                    used.insert(root, count);
                }
            }
        }
        for (root, count) in used {
            if root > ports.end {
                ports.free.insert(ports.end, root - ports.end);
            }
            ports.end = ports.end.max(root + count);
        }
        let owned = |at: &u32| {
            let mut tables = ports.tables.values();
            tables.any(|nodes| (nodes.root..nodes.root + nodes.count).contains(at))
        };
        let stray: Vec<u32> = nodes
            .rows()
            .keys()
            .filter(|at| !owned(at))
            .copied()
            .collect();
        for at in stray {
            nodes.remove(&at)?;
        }
        Ok(ports)
    }

    /// First node of a table that was put.
    pub(crate) fn root(&self, id: PortsId) -> Option<u32> {
        self.tables.get(&id).map(|nodes| nodes.root)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PortsId> {
        self.tables.keys().copied()
    }

    /// Writes a table; one that is there is left alone: its id is made of its
    /// content. True if it was not.
    ///
    /// # Errors
    /// [`Error::TableFull`]; then nothing of it is left.
    pub(crate) fn put(
        &mut self,
        nodes: &mut Mirror<u32, PortNode>,
        id: PortsId,
        table: &PortTable,
    ) -> Result<bool, Error> {
        let count = kernel::port_nodes_count(table) as u32;
        if let Some(known) = self.tables.get(&id) {
            let mut rows = (known.root..).zip(kernel::port_nodes(table, known.root));
            let is_there = |(at, node): (u32, PortNode)| nodes.rows().get(&at) == Some(&node);
            if known.count == count && rows.all(is_there) {
                return Ok(false);
            }
            self.remove(nodes, id)?;
        }
        let root = self.take(count);
        for (at, node) in (root..).zip(kernel::port_nodes(table, root)) {
            let name = || format!("ports {:x}", id.number());
            if let Err(error) = nodes.put(at, node, name) {
                for at in root..at {
                    nodes.remove(&at)?;
                }
                self.give(Nodes { root, count });
                return Err(error);
            }
        }
        self.tables.insert(id, Nodes { root, count });
        Ok(true)
    }

    /// True if it was there.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn remove(
        &mut self,
        nodes: &mut Mirror<u32, PortNode>,
        id: PortsId,
    ) -> Result<bool, Error> {
        let Some(gone) = self.tables.remove(&id) else {
            return Ok(false);
        };
        self.freed.push(gone);
        for at in gone.root..gone.root + gone.count {
            nodes.remove(&at)?;
        }
        Ok(true)
    }

    /// From now on numbers that were freed before are used again.
    pub(crate) fn settle(&mut self) {
        for nodes in std::mem::take(&mut self.freed) {
            self.give(nodes);
        }
    }

    /// Numbers in a row.
    fn take(&mut self, count: u32) -> u32 {
        let fits = self.free.iter().find(|(_, length)| **length >= count);
        let Some((&root, &length)) = fits else {
            let root = self.end;
            self.end += count;
            return root;
        };
        self.free.remove(&root);
        if length > count {
            self.free.insert(root + count, length - count);
        }
        root
    }

    fn give(
        &mut self,
        Nodes {
            mut root,
            mut count,
        }: Nodes,
    ) {
        if let Some(after) = self.free.remove(&(root + count)) {
            count += after;
        }
        if let Some((&before, &length)) = self.free.range(..root).next_back()
            && before + length == root
        {
            self.free.remove(&before);
            (root, count) = (before, length + count);
        }
        if root + count == self.end {
            self.end = root;
        } else {
            self.free.insert(root, count);
        }
    }
}
