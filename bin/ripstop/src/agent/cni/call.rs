//! A request as the runtime meant it: parsed and checked before anything is done.

use std::path::PathBuf;

use ripstop_cni_types::wire::Request;
use ripstop_cni_types::{Attachment, Code, Config, Error, PodArgs, Version};

/// Longest interface name (`IFNAMSIZ` less its zero byte).
const MAX_IFNAME: usize = 15;

/// One attachment that a request is about.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) key: Attachment,
    /// Absent if the runtime did not name it, or its namespace is gone (DEL).
    pub(super) netns: Option<PathBuf>,
    pub(super) pod: PodArgs,
    pub(super) config: Config,
}

/// The configuration of a request; its version knows the command.
pub(super) fn config(request: &Request) -> Result<Config, Error> {
    let version = Config::version_of(&request.config)?;
    let since = Version::of_command(&request.command);
    if version < since {
        return Err(Error::new(
            Code::IncompatibleVersion,
            format!(
                "{} needs cniVersion {since} or later, not {version}",
                request.command
            ),
        ));
    }
    Config::read(&request.config, version)
}

impl Call {
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let config = config(request)?;
        let container_id = valid_container_id(&request.container_id)?;
        let ifname = valid_ifname(&request.ifname)?;
        Ok(Self {
            key: Attachment {
                container_id,
                ifname,
            },
            netns: request
                .netns
                .as_ref()
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            pod: PodArgs::parse(&request.args),
            config,
        })
    }

    /// The namespace, for the commands that cannot do without.
    pub(super) fn netns(&self) -> Result<&PathBuf, Error> {
        self.netns
            .as_ref()
            .ok_or_else(|| invalid("CNI_NETNS", "is not set"))
    }
}

pub(super) fn invalid(variable: &str, problem: &str) -> Error {
    Error::new(Code::InvalidEnvironment, format!("{variable} {problem}"))
}

/// "Starts with an alphanumeric character, optionally followed by alphanumeric
/// characters, underscore, dot or hyphen"; it becomes part of a file name.
fn valid_container_id(id: &str) -> Result<String, Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if id.is_empty() {
        return Err(invalid("CNI_CONTAINERID", "is not set"));
    }
    let good = id.as_bytes()[0].is_ascii_alphanumeric() && id.bytes().all(allowed);
    if !good || id.len() > 200 {
        return Err(invalid(
            "CNI_CONTAINERID",
            &format!(
                "{id:?} is not valid: letters, digits, '_', '.' and '-', \
                 the first one a letter or digit, at most 200"
            ),
        ));
    }
    Ok(id.to_owned())
}

/// The kernel's rule (`dev_valid_name`).
fn valid_ifname(name: &str) -> Result<String, Error> {
    if name.is_empty() {
        return Err(invalid("CNI_IFNAME", "is not set"));
    }
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.len() > MAX_IFNAME || name == "." || name == ".." || name.contains(bad) {
        return Err(invalid(
            "CNI_IFNAME",
            &format!("{name:?} is no interface name: at most 15 bytes without '/', ':' and spaces"),
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn request(command: &str, id: &str, ifname: &str, version: &str) -> Request {
        Request {
            command: command.to_owned(),
            container_id: id.to_owned(),
            netns: None,
            ifname: ifname.to_owned(),
            args: String::new(),
            config: json!({"cniVersion": version, "name": "n"}),
        }
    }

    proptest! {
        /// Whatever a runtime says: what is let through is fit to be a file's and an
        /// interface's name.
        #[test]
        fn what_passes_can_be_a_name(
            id in "(\\PC|[a-z0-9./_-]){0,210}",
            ifname in "(\\PC|[a-z0-9./:]){0,18}",
            args in "([A-Z0-9_]{0,20}=?[^;]{0,10};?){0,5}",
            version in "(\\PC{0,8}|[01]\\.[0-4]\\.[01])",
            command in "(ADD|DEL|CHECK|GC|STATUS|\\PC{0,6})",
            capability in "(dns|portMappings|\\PC{0,5})",
            value in "\\PC{0,20}",
        ) {
            let mut request = request(&command, &id, &ifname, &version);
            request.args = args;
            request.config["runtimeConfig"] = json!({capability: value});
            if let Ok(call) = Call::read(&request) {
                let key = &call.key;
                prop_assert!(!key.container_id.contains('/') && key.container_id.len() <= 200);
                prop_assert!(!key.container_id.starts_with('.'));
                prop_assert!(!key.ifname.contains('/') && key.ifname.len() <= MAX_IFNAME);
                prop_assert!(!matches!(key.ifname.as_str(), "" | "." | ".."));
            }
        }
    }

    #[test]
    fn bad_variables_are_named() {
        let cases = [
            ("ADD", "", "eth0", "1.1.0", "CNI_CONTAINERID is not set"),
            ("ADD", "../x", "eth0", "1.1.0", "CNI_CONTAINERID \"../x\""),
            ("ADD", "-x", "eth0", "1.1.0", "CNI_CONTAINERID"),
            ("ADD", "x", "", "1.1.0", "CNI_IFNAME is not set"),
            ("ADD", "x", "a/b", "1.1.0", "CNI_IFNAME \"a/b\""),
            ("ADD", "x", "sixteen-letters-", "1.1.0", "CNI_IFNAME"),
            (
                "CHECK",
                "x",
                "eth0",
                "0.3.1",
                "CHECK needs cniVersion 0.4.0 or later, not 0.3.1",
            ),
        ];
        for (command, id, ifname, version, words) in cases {
            let error = Call::read(&request(command, id, ifname, version)).unwrap_err();
            assert!(error.msg.contains(words), "{error}");
        }
        let call = Call::read(&request("DEL", "3f-4_c.x", "eth0", "0.3.1")).unwrap();
        assert_eq!(call.netns().unwrap_err().msg, "CNI_NETNS is not set");
    }
}
