//! Sides and classes in use, and the row of each pair that needs one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ripstop_model::ContainerPort;

use super::attribution::Attribution;
use super::compile::{ClassContent, Compiled, compile, matching};
use super::id::{AttributionId, ClassId, PeersId, PolicyId, PortsId};
use super::pool::Pool;
use super::rows::{Cell, PolicyChange, PolicyTables, PortTable, RuleRow};
use super::side::Side;

/// A class with the number of prefixes that have it.
#[derive(Clone, Debug)]
struct Class {
    content: Arc<ClassContent>,
    base: ClassId,
    uses: usize,
}

/// What was compiled in one update: sides say the same of most classes.
type Cache = HashMap<(PolicyId, Vec<u32>, bool, Vec<ContainerPort>), Compiled>;

/// Rows of pairs, kept while sides and classes come and go.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) sides: BTreeMap<PolicyId, Side>,
    classes: HashMap<ClassId, Class>,
    base: HashMap<ClassId, Arc<ClassContent>>,
    /// Who has to look when a class has these peers.
    sides_of: HashMap<PeersId, BTreeSet<PolicyId>>,
    classes_of: HashMap<PeersId, BTreeSet<ClassId>>,
    /// Classes without peers that the base class of their family has.
    classes_without: HashMap<PeersId, BTreeSet<ClassId>>,
    /// Sides whose rules name ports of the other end, and classes that have some.
    sides_with_names: BTreeSet<PolicyId>,
    classes_with_names: BTreeSet<ClassId>,
    ports: HashMap<PortsId, (Arc<PortTable>, usize)>,
    shared: Pool<RuleRow>,
    attributions: HashMap<AttributionId, usize>,
    stale_sides: BTreeSet<PolicyId>,
    stale_classes: BTreeSet<ClassId>,
    stale_ports: HashSet<PortsId>,
    stale_attributions: HashMap<AttributionId, Arc<Attribution>>,
}

impl Rules {
    pub(super) fn add_side(&mut self, id: PolicyId, side: Side) {
        for peers in side.interests() {
            self.sides_of.entry(peers).or_default().insert(id);
        }
        if !side.names.is_empty() {
            self.sides_with_names.insert(id);
        }
        for (by, attribution) in &side.attributions {
            *self.attributions.entry(*by).or_default() += 1;
            self.stale_attributions.insert(*by, Arc::clone(attribution));
        }
        self.sides.insert(id, side);
        self.stale_sides.insert(id);
    }

    pub(super) fn remove_side(&mut self, id: PolicyId) -> Option<Side> {
        let side = self.sides.remove(&id)?;
        for peers in side.interests() {
            remove(&mut self.sides_of, peers, &id);
        }
        self.sides_with_names.remove(&id);
        for (by, attribution) in &side.attributions {
            if let Some(uses) = self.attributions.get_mut(by) {
                *uses -= 1;
                if *uses == 0 {
                    self.attributions.remove(by);
                }
            }
            self.stale_attributions.insert(*by, Arc::clone(attribution));
        }
        self.stale_sides.insert(id);
        Some(side)
    }

    /// What the addresses without a row match.
    pub(super) fn set_base(&mut self, base: ClassId, content: ClassContent) {
        let content = Arc::new(content);
        let before = self.base.insert(base, Arc::clone(&content));
        if before.unwrap_or_default() != content {
            self.stale_sides.extend(self.sides.keys());
            self.classes_without.clear();
            for (id, class) in &self.classes {
                for peers in lacking(&class.content, self.base.get(&class.base)) {
                    self.classes_without.entry(peers).or_default().insert(*id);
                }
            }
        }
    }

    pub(super) fn is_base(&self, base: ClassId, content: &ClassContent) -> bool {
        *self.base_content(base) == *content
    }

    pub(super) fn acquire_class(&mut self, id: ClassId, base: ClassId, content: ClassContent) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.uses += 1;
            return;
        }
        for peers in &content.peers {
            self.classes_of.entry(*peers).or_default().insert(id);
        }
        for peers in lacking(&content, self.base.get(&base)) {
            self.classes_without.entry(peers).or_default().insert(id);
        }
        if !content.ports.is_empty() {
            self.classes_with_names.insert(id);
        }
        let class = Class {
            content: Arc::new(content),
            base,
            uses: 1,
        };
        self.classes.insert(id, class);
        self.stale_classes.insert(id);
    }

    pub(super) fn release_class(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(&id) {
            class.uses -= 1;
            if class.uses == 0 {
                self.stale_classes.insert(id);
            }
        }
    }

    /// Number of classes in use.
    pub(super) fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Brings the rows of all pairs up to date that something has changed for.
    pub(super) fn plan(&mut self, tables: &PolicyTables, change: &mut PolicyChange) {
        let mut cache = Cache::new();
        let stale_classes = std::mem::take(&mut self.stale_classes);
        let stale_sides = std::mem::take(&mut self.stale_sides);
        for id in &stale_classes {
            if self.classes.get(id).is_some_and(|class| class.uses == 0) {
                self.forget_class(*id, tables, change);
            }
        }
        for id in &stale_sides {
            self.plan_side(*id, tables, change, &mut cache);
        }
        for id in &stale_classes {
            let Some(class) = self.classes.get(id) else {
                continue;
            };
            for side in self.sides_about(class) {
                if !stale_sides.contains(&side) {
                    let compiled = self.pair(side, *id, &mut cache);
                    self.put(tables, change, (side, *id), compiled);
                }
            }
        }
        self.put_ports(tables, change);
        self.put_attributions(tables, change);
    }

    /// All rows of one side.
    fn plan_side(
        &mut self,
        id: PolicyId,
        tables: &PolicyTables,
        change: &mut PolicyChange,
        cache: &mut Cache,
    ) {
        let mut rows: BTreeMap<ClassId, Option<Compiled>> = tables
            .rules
            .range((id, ClassId::MIN)..=(id, ClassId::MAX))
            .map(|((_, class), _)| (*class, None))
            .collect();
        if let Some(side) = self.sides.get(&id) {
            for base in [ClassId::V4, ClassId::V6] {
                rows.insert(
                    base,
                    self.compiled(id, side, &self.base_content(base), cache),
                );
            }
            let mut classes = BTreeSet::new();
            for peers in side.interests() {
                classes.extend(self.classes_of.get(&peers).into_iter().flatten());
                classes.extend(self.classes_without.get(&peers).into_iter().flatten());
            }
            if !side.names.is_empty() {
                classes.extend(&self.classes_with_names);
            }
            for class in classes {
                rows.insert(class, self.pair(id, class, cache));
            }
        }
        for (class, compiled) in rows {
            self.put(tables, change, (id, class), compiled);
        }
    }

    fn forget_class(&mut self, id: ClassId, tables: &PolicyTables, change: &mut PolicyChange) {
        let Some(class) = self.classes.remove(&id) else {
            return;
        };
        for side in self.sides_about(&class) {
            self.put(tables, change, (side, id), None);
        }
        for peers in &class.content.peers {
            remove(&mut self.classes_of, *peers, &id);
        }
        for peers in lacking(&class.content, self.base.get(&class.base)) {
            remove(&mut self.classes_without, peers, &id);
        }
        self.classes_with_names.remove(&id);
    }

    /// Sides that tell a class from the base class of its family.
    fn sides_about(&self, class: &Class) -> BTreeSet<PolicyId> {
        let lacking = lacking(&class.content, self.base.get(&class.base));
        let peers = class.content.peers.iter().copied().chain(lacking);
        let mut sides = BTreeSet::new();
        for peers in peers {
            sides.extend(self.sides_of.get(&peers).into_iter().flatten());
        }
        if !class.content.ports.is_empty() {
            sides.extend(&self.sides_with_names);
        }
        sides
    }

    /// The row of a pair; `None` if that of the base class says the same.
    fn pair(&self, side_id: PolicyId, class: ClassId, cache: &mut Cache) -> Option<Compiled> {
        let side = self.sides.get(&side_id)?;
        let class = self.classes.get(&class)?;
        let base = self.compiled(side_id, side, &self.base_content(class.base), cache)?;
        let own = self.compiled(side_id, side, &class.content, cache)?;
        (own.row != base.row).then_some(own)
    }

    /// Never `None`: as [`Self::put`] takes it.
    fn compiled(
        &self,
        id: PolicyId,
        side: &Side,
        class: &ClassContent,
        cache: &mut Cache,
    ) -> Option<Compiled> {
        let rules = matching(side, class);
        let ports = match side.names.is_empty() {
            true => Vec::new(),
            false => class.ports.clone(),
        };
        let key = (id, rules, class.has(PeersId::OWN_NODE), ports);
        if let Some(known) = cache.get(&key) {
            return Some(known.clone());
        }
        let compiled = compile(side, class, &key.1);
        cache.insert(key, compiled.clone());
        Some(compiled)
    }

    fn base_content(&self, base: ClassId) -> Arc<ClassContent> {
        self.base.get(&base).cloned().unwrap_or_default()
    }

    fn put(
        &mut self,
        tables: &PolicyTables,
        change: &mut PolicyChange,
        pair: (PolicyId, ClassId),
        compiled: Option<Compiled>,
    ) {
        let now = match change.rules.get(&pair) {
            Some(changed) => changed.clone(),
            None => tables.rules.get(&pair).cloned(),
        };
        let row = compiled
            .as_ref()
            .map(|compiled| self.shared.get(&compiled.row));
        if now == row {
            return;
        }
        for (id, table) in compiled.into_iter().flat_map(|compiled| compiled.tables) {
            let entry = self.ports.entry(id);
            entry.or_insert_with(|| (table, 0)).1 += 1;
            self.stale_ports.insert(id);
        }
        for id in now.iter().flat_map(|row| tables_of(row)) {
            if let Some((_, uses)) = self.ports.get_mut(&id) {
                *uses -= 1;
            }
            self.stale_ports.insert(id);
        }
        match row.as_ref() == tables.rules.get(&pair) {
            true => drop(change.rules.remove(&pair)),
            false => drop(change.rules.insert(pair, row)),
        }
    }

    fn put_ports(&mut self, tables: &PolicyTables, change: &mut PolicyChange) {
        for id in std::mem::take(&mut self.stale_ports) {
            if self.ports.get(&id).is_some_and(|(_, uses)| *uses == 0) {
                self.ports.remove(&id);
            }
            let now = self.ports.get(&id).map(|(table, _)| table);
            if tables.ports.get(&id) != now {
                change.ports.insert(id, now.cloned());
            }
        }
    }

    fn put_attributions(&mut self, tables: &PolicyTables, change: &mut PolicyChange) {
        for (id, attribution) in self.stale_attributions.drain() {
            let now = self.attributions.contains_key(&id).then_some(attribution);
            if tables.attributions.get(&id) != now.as_ref() {
                change.attributions.insert(id, now);
            }
        }
    }
}

/// Peers that the base class has and another one has not.
fn lacking<'a>(
    class: &'a ClassContent,
    base: Option<&'a Arc<ClassContent>>,
) -> impl Iterator<Item = PeersId> + use<'a> {
    let peers = base.into_iter().flat_map(|base| &base.peers);
    peers.copied().filter(|peers| !class.has(*peers))
}

/// The port tables that a row refers to, as often as it does.
fn tables_of(row: &RuleRow) -> impl Iterator<Item = PortsId> {
    let cells = [row.tcp, row.udp, row.sctp];
    cells.into_iter().filter_map(|cell| match cell {
        Cell::ByPort(id) => Some(id),
        Cell::All(_) => None,
    })
}

fn remove<T: Ord>(map: &mut HashMap<PeersId, BTreeSet<T>>, key: PeersId, value: &T) {
    if let Some(set) = map.get_mut(&key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(&key);
        }
    }
}
