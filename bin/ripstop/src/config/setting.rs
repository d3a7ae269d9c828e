//! One setting, as its flag describes it.

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

/// What a key may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Switch,
    One,
    List,
}

#[derive(Clone, Debug)]
pub(super) struct Setting {
    arg: Arg,
    flag: String,
    pub(super) key: String,
    pub(super) sort: Sort,
}

impl Setting {
    /// `None` for what is no setting (`--help`).
    pub(super) fn new(arg: &Arg) -> Option<Self> {
        let flag = arg.get_long()?;
        let sort = match arg.get_action() {
            ArgAction::SetTrue => Sort::Switch,
            ArgAction::Set => Sort::One,
            ArgAction::Append => Sort::List,
            _ => return None,
        };
        Some(Self {
            key: camel(flag),
            flag: flag.to_owned(),
            sort,
            arg: arg.clone(),
        })
    }

    pub(super) fn id(&self) -> &str {
        self.arg.get_id().as_str()
    }

    pub(super) fn is_required(&self) -> bool {
        self.arg.is_required_set()
    }

    pub(super) fn help(&self) -> String {
        let help = self.arg.get_long_help().or(self.arg.get_help());
        help.map(ToString::to_string).unwrap_or_default()
    }

    pub(super) fn defaults(&self) -> Vec<String> {
        let defaults = self.arg.get_default_values().iter();
        defaults.map(|v| v.to_string_lossy().into_owned()).collect()
    }

    /// Words that a value can be, if it can only be one of some.
    pub(super) fn choices(&self) -> Vec<String> {
        let choices = self.arg.get_possible_values();
        choices.iter().map(|c| c.get_name().to_owned()).collect()
    }

    /// What stands for these values on the command line.
    pub(super) fn flags(&self, values: &[String]) -> Vec<String> {
        let flag = &self.flag;
        match self.sort {
            Sort::Switch if values == ["true"] => vec![format!("--{flag}")],
            Sort::Switch => Vec::new(),
            _ => values.iter().map(|v| format!("--{flag}={v}")).collect(),
        }
    }

    /// What is wrong with a value, and what would be right.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let alone = Command::new("")
            .no_binary_name(true)
            .disable_help_flag(true);
        let alone = alone.arg(self.arg.clone().required(false));
        let Err(error) = alone.try_get_matches_from(self.flags(&[value.to_owned()])) else {
            return Ok(());
        };
        if let Some(source) = error.source() {
            return Err(source.to_string());
        }
        Err(match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(right)) => format!("right would be: {}", right.join(", ")),
            _ => error.kind().to_string(),
        })
    }
}

/// `cluster-dns` as `clusterDns`.
fn camel(flag: &str) -> String {
    let mut words = flag.split('-');
    let mut key = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        key.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        key.push_str(letters.as_str());
    }
    key
}
