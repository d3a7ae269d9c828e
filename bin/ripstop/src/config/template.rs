//! A configuration file with all settings.

use super::setting::{Setting, Sort};

/// Longest line of a comment.
const WIDTH: usize = 78;

/// Every setting with its words and its default; those that every cluster has to
/// say itself are commented out.
pub(super) fn all(settings: &[Setting]) -> String {
    let mut text = String::from(
        "# Configuration of `ripstop agent` (--config FILE). Everything here is the\n\
         # default; flags override it.\n",
    );
    for setting in settings {
        text.push('\n');
        comment(&mut text, &setting.help());
        let choices = setting.choices();
        if !choices.is_empty() && setting.sort != Sort::Switch {
            comment(&mut text, &format!("One of: {}.", choices.join(", ")));
        }
        let key = &setting.key;
        let line = match setting.is_required() {
            true => format!("# {key}: (to be set)\n"),
            false => format!("{key}: {}\n", default(setting)),
        };
        text.push_str(&line);
    }
    text
}

fn default(setting: &Setting) -> String {
    let defaults = setting.defaults();
    match (setting.sort, &defaults[..]) {
        (Sort::Switch, _) => "false".to_owned(),
        (Sort::One, [one]) => plain(one),
        (Sort::One, _) => "null".to_owned(),
        (Sort::List, all) => {
            let all: Vec<String> = all.iter().map(|value| plain(value)).collect();
            format!("[{}]", all.join(", "))
        }
    }
}

/// Without quotes where YAML does not need them.
fn plain(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/.-_".contains(c);
    match !value.is_empty() && value.chars().all(is_plain) {
        true => value.to_owned(),
        false => format!("{value:?}"),
    }
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > 1 {
        text.push_str(&line);
        text.push('\n');
    }
}
