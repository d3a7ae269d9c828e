//! What a configuration file says.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::nearest::nearest;
use super::setting::{Setting, Sort};

/// The settings that the file has, with their values as a flag would have them.
///
/// # Errors
/// With the file, the line and the key, and what would be right.
pub(super) fn read<'s>(
    path: &Path,
    settings: &'s [Setting],
) -> Result<Vec<(&'s Setting, Vec<String>)>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("configuration {shown}"))?;
    parse(&text, settings).map_err(|(line, problem)| match line {
        Some(line) => anyhow::anyhow!("configuration {shown}, line {line}: {problem}"),
        None => anyhow::anyhow!("configuration {shown}: {problem}"),
    })
}

/// A line of the file, if one is known, and what is wrong there.
type Problem = (Option<usize>, String);

pub(super) fn parse<'s>(
    text: &str,
    settings: &'s [Setting],
) -> Result<Vec<(&'s Setting, Vec<String>)>, Problem> {
    // Comments alone are a file without settings.
    let keys: Option<BTreeMap<String, Value>> =
        serde_saphyr::from_str(text).map_err(|error| (None, error.to_string()))?;
    let mut found = Vec::new();
    for (key, value) in keys.into_iter().flatten() {
        let at = |problem: String| (line_of(text, &key), problem);
        let Some(setting) = settings.iter().find(|setting| setting.key == key) else {
            let known = settings.iter().map(|setting| setting.key.as_str());
            let hint = match nearest(&key, known) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "`ripstop config default` lists all settings".to_owned(),
            };
            return Err(at(format!("there is no setting {key}; {hint}")));
        };
        let values = values(setting, value).map_err(|error| at(error.to_string()))?;
        for value in &values {
            let checked = setting.check(value);
            checked.map_err(|why| at(format!("{key}: {value:?} is no value for it: {why}")))?;
        }
        found.push((setting, values));
    }
    Ok(found)
}

/// Nothing for a key without a value: the default is meant.
fn values(setting: &Setting, value: Value) -> Result<Vec<String>> {
    let key = &setting.key;
    match (setting.sort, value) {
        (_, Value::Null) => Ok(Vec::new()),
        (Sort::Switch, Value::Bool(value)) => Ok(vec![value.to_string()]),
        (Sort::Switch, _) => bail!("{key} is true or false"),
        (Sort::List, Value::Array(values)) => {
            values.into_iter().map(|value| one(key, value)).collect()
        }
        (Sort::One, Value::Array(_)) => bail!("{key} has one value, not a list"),
        (_, value) => Ok(vec![one(key, value)?]),
    }
}

fn one(key: &str, value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        _ => bail!("{key} has no settings below it"),
    }
}

fn line_of(text: &str, key: &str) -> Option<usize> {
    let is_there = |line: &str| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    text.lines().position(is_there).map(|index| index + 1)
}
