//! Sets of fields: what a manager owns of an object.
//!
//! A set is a tree of path elements. It is kept in the form in which
//! `managedFields` writes it (`fieldsV1`): an element is `f:<field>`,
//! `k:<keys of a list item>` or `v:<value of a set's item>`.

mod path;
mod wire;

use std::collections::BTreeMap;

use crate::kinds::schema::{ListKind, Type};

pub(super) use path::{Path, field, item};

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet(BTreeMap<String, Node>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// The field itself is in the set, not only fields in it.
    member: bool,
    below: FieldSet,
}

impl FieldSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, path: &[String]) {
        if let [first, rest @ ..] = path {
            let node = self.0.entry(first.clone()).or_default();
            if rest.is_empty() {
                node.member = true;
            } else {
                node.below.insert(rest);
            }
        }
    }

    /// Whether this element of the top level is a member.
    pub(super) fn has(&self, element: &str) -> bool {
        self.0.get(element).is_some_and(|node| node.member)
    }

    /// What of the set is in this element; nothing if that is empty.
    pub(super) fn below(&self, element: &str) -> Option<&Self> {
        let node = self.0.get(element)?;
        (!node.below.is_empty()).then_some(&node.below)
    }

    /// Takes out an element of the top level with all that is in it.
    pub(super) fn cut(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => drop(self.0.remove(*last)),
            [first, rest @ ..] => {
                if let Some(node) = self.0.get_mut(*first) {
                    node.below.cut(rest);
                    if !node.member && node.below.is_empty() {
                        self.0.remove(*first);
                    }
                }
            }
        }
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (element, node) in &other.0 {
            let found = all.0.entry(element.clone()).or_default();
            found.member |= node.member;
            found.below = found.below.union(&node.below);
        }
        all
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.keep(other, |mine, theirs| mine && theirs)
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        self.keep(other, |mine, theirs| mine && !theirs)
    }

    /// The members of which `stays` (in self, in other) is true.
    fn keep(&self, other: &Self, stays: fn(bool, bool) -> bool) -> Self {
        static NOTHING: Node = Node {
            member: false,
            below: FieldSet(BTreeMap::new()),
        };
        let kept = self.0.iter().filter_map(|(element, mine)| {
            let theirs = other.0.get(element).unwrap_or(&NOTHING);
            let node = Node {
                member: stays(mine.member, theirs.member),
                below: mine.below.keep(&theirs.below, stays),
            };
            (node.member || !node.below.is_empty()).then(|| (element.clone(), node))
        });
        Self(kept.collect())
    }

    /// All members.
    pub(super) fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, way: &mut Vec<String>, paths: &mut Vec<Path>) {
        for (element, node) in &self.0 {
            way.push(element.clone());
            if node.member {
                paths.push(Path(way.clone()));
            }
            node.below.collect(way, paths);
            way.pop();
        }
    }

    /// The set with every declared field of which something is in the set: a
    /// field goes when nobody owns anything in it.
    pub(super) fn with_parents(&self, type_: &Type) -> Self {
        let all = self.0.iter().map(|(element, node)| {
            let name = element.strip_prefix("f:");
            let (declared, below) = match (type_, name) {
                (Type::Object(object), Some(name)) if !object.atomic => {
                    let field = object.field(name);
                    (field.is_some(), field.map(|field| &field.type_))
                }
                (Type::Map(map), Some(_)) => (false, Some(&map.value)),
                (Type::List(list), None) if list.kind != ListKind::Atomic => {
                    (false, Some(&list.item))
                }
                _ => (false, None),
            };
            let node = Node {
                member: node.member || declared,
                below: match below {
                    Some(type_) => node.below.with_parents(type_),
                    None => node.below.clone(),
                },
            };
            (element.clone(), node)
        });
        Self(all.collect())
    }
}

#[cfg(test)]
mod tests;
