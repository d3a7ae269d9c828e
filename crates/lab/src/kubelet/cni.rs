//! Calls the node's CNI plugins as container runtimes do.
//! <https://github.com/containernetworking/cni/blob/main/SPEC.md>

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The pod's interface; container runtimes give every pod this one.
pub(super) const IFNAME: &str = "eth0";

/// How long a plugin may take, as long as containerd lets a sandbox take less
/// than kubelet's patience. What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A network configuration list, ready to be executed.
#[derive(Clone, Debug)]
pub(super) struct Network {
    name: String,
    version: String,
    plugins: Vec<Map<String, Value>>,
    disable_check: bool,
    disable_gc: bool,
    bin_dir: PathBuf,
}

/// One attachment of a pod to the network.
#[derive(Clone, Debug)]
pub(super) struct Attachment {
    pub(super) id: String,
    pub(super) netns: PathBuf,
    /// `CNI_ARGS`.
    pub(super) args: String,
    /// Values of capabilities (`portMappings`, `bandwidth`), for the plugins
    /// that declare them.
    pub(super) capabilities: Map<String, Value>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("CNI configuration {path}: {problem}")]
pub struct LoadError {
    pub path: PathBuf,
    pub problem: String,
}

/// A plugin failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
// The words in which containerd passes it on.
#[error("plugin type={plugin:?} failed ({}): {message}", command.to_lowercase())]
pub(super) struct PluginError {
    plugin: String,
    command: &'static str,
    message: String,
}

impl Network {
    /// # Errors
    /// If the file cannot be read or is no configuration list.
    pub(super) fn load(path: &Path, bin_dir: &Path) -> Result<Self, LoadError> {
        let failed = |problem: String| LoadError {
            path: path.to_owned(),
            problem,
        };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let config: Value =
            serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        Self::parse(&config, bin_dir).map_err(failed)
    }

    fn parse(config: &Value, bin_dir: &Path) -> Result<Self, String> {
        let text = |field: &str| {
            let value = config
                .get(field)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty());
            value
                .map(str::to_owned)
                .ok_or_else(|| format!("field {field:?} is missing"))
        };
        let plugins = config
            .get("plugins")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let plugins = plugins
            .into_iter()
            .map(|plugin| match plugin {
                Value::Object(plugin) if plugin.get("type").is_some_and(Value::is_string) => {
                    Ok(plugin)
                }
                other => Err(format!("not a plugin with a type: {other}")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if plugins.is_empty() {
            return Err("field \"plugins\" is missing or empty".to_owned());
        }
        let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            name: text("name")?,
            version: newest(config).map_or_else(|| text("cniVersion"), Ok)?,
            plugins,
            disable_check: flag("disableCheck"),
            disable_gc: flag("disableGC"),
            bin_dir: bin_dir.to_owned(),
        })
    }

    /// Attaches: each plugin gets the result of the one before it.
    ///
    /// # Errors
    /// The first plugin that fails. What the ones before it made stays: callers
    /// [`Network::delete`] then, as the specification asks.
    pub(super) async fn add(&self, attachment: &Attachment) -> Result<Value, PluginError> {
        let mut result = Value::Null;
        for plugin in &self.plugins {
            result = self
                .call("ADD", plugin, Some(attachment), &result, json!({}))
                .await?;
        }
        Ok(result)
    }

    /// Whether an attachment is still as `result` says.
    ///
    /// # Errors
    /// The first plugin that finds it different.
    pub(super) async fn check(
        &self,
        attachment: &Attachment,
        result: &Value,
    ) -> Result<(), PluginError> {
        if self.disable_check {
            return Ok(());
        }
        for plugin in &self.plugins {
            self.call("CHECK", plugin, Some(attachment), result, json!({}))
                .await?;
        }
        Ok(())
    }

    /// Detaches, in reverse order. An attachment that is not there is no error.
    ///
    /// # Errors
    /// The first plugin that fails.
    pub(super) async fn delete(
        &self,
        attachment: &Attachment,
        result: &Value,
    ) -> Result<(), PluginError> {
        for plugin in self.plugins.iter().rev() {
            self.call("DEL", plugin, Some(attachment), result, json!({}))
                .await?;
        }
        Ok(())
    }

    /// A socket that a plugin's configuration names and that nobody listens on
    /// yet. Looking for it is much cheaper than executing the plugin to be told.
    pub(super) fn missing_socket(&self) -> Option<&Path> {
        let named = self
            .plugins
            .iter()
            .filter_map(|plugin| plugin.get("socket")?.as_str());
        named.map(Path::new).find(|path| !path.exists())
    }

    /// Whether the plugins can serve ADD.
    ///
    /// # Errors
    /// The first plugin that cannot.
    pub(super) async fn status(&self) -> Result<(), PluginError> {
        for plugin in &self.plugins {
            self.call("STATUS", plugin, None, &Value::Null, json!({}))
                .await?;
        }
        Ok(())
    }

    /// Releases what is left of attachments other than `valid` ones (container
    /// ids).
    ///
    /// # Errors
    /// The first plugin that fails.
    pub(super) async fn collect_garbage(&self, valid: &[String]) -> Result<(), PluginError> {
        if self.disable_gc {
            return Ok(());
        }
        let valid: Vec<Value> = valid
            .iter()
            .map(|id| json!({"containerID": id, "ifname": IFNAME}))
            .collect();
        for plugin in &self.plugins {
            let more = json!({"cni.dev/valid-attachments": valid});
            self.call("GC", plugin, None, &Value::Null, more).await?;
        }
        Ok(())
    }

    /// Executes one plugin. A result is `Null` if it printed none.
    async fn call(
        &self,
        command: &'static str,
        plugin: &Map<String, Value>,
        attachment: Option<&Attachment>,
        previous: &Value,
        more: Value,
    ) -> Result<Value, PluginError> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let failed = |message: String| PluginError {
            plugin: kind.to_owned(),
            command,
            message,
        };
        let mut config = self.config(plugin, attachment, previous);
        if let Value::Object(more) = more {
            config.extend(more);
        }
        let mut process = Command::new(self.bin_dir.join(kind));
        process
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", &self.bin_dir);
        if let Some(attachment) = attachment {
            process
                .env("CNI_CONTAINERID", &attachment.id)
                .env("CNI_NETNS", &attachment.netns)
                .env("CNI_IFNAME", IFNAME)
                .env("CNI_ARGS", &attachment.args);
        }
        let input = Value::Object(config).to_string();
        let run = execute(process, input.as_bytes());
        let output = tokio::time::timeout(PATIENCE, run)
            .await
            .map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return match output.stdout.trim_ascii().is_empty() {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&output.stdout)
                    .map_err(|error| failed(format!("its result is not JSON: {error}"))),
            };
        }
        Err(failed(message(&output)))
    }

    /// Section 2, "Deriving execution configuration from plugin configuration".
    fn config(
        &self,
        plugin: &Map<String, Value>,
        attachment: Option<&Attachment>,
        previous: &Value,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("cniVersion".to_owned(), self.version.clone().into());
        config.insert("name".to_owned(), self.name.clone().into());
        if !previous.is_null() {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        let declares = |capability: &str| {
            plugin.get("capabilities").and_then(|c| c.get(capability)) == Some(&Value::Bool(true))
        };
        let values: Map<String, Value> = attachment
            .into_iter()
            .flat_map(|attachment| attachment.capabilities.clone())
            .filter(|(capability, _)| declares(capability))
            .collect();
        if !values.is_empty() {
            config.insert("runtimeConfig".to_owned(), values.into());
        }
        config
    }
}

async fn execute(mut process: Command, input: &[u8]) -> io::Result<std::process::Output> {
    process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process.kill_on_drop(true).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that does not read its configuration says why in its error.
        let _ = stdin.write_all(input).await;
    }
    child.wait_with_output().await
}

/// Section 5, "Error": an object on standard output; else whatever it said.
fn message(output: &std::process::Output) -> String {
    let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |field: &str| error.get(field).and_then(Value::as_str).unwrap_or_default();
    match (text("msg"), text("details")) {
        ("", _) => {
            let said = [output.stdout.as_slice(), &output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            if said.is_empty() {
                output.status.to_string()
            } else {
                said
            }
        }
        (msg, "") => msg.to_owned(),
        (msg, details) => format!("{msg}; {details}"),
    }
}

/// The addresses that an ADD result gives the pod itself.
pub(super) fn addresses(result: &Value) -> Vec<IpAddr> {
    let in_pod = |ip: &Value| {
        let Some(interface) = ip.get("interface").and_then(Value::as_u64) else {
            return true;
        };
        let index = usize::try_from(interface).unwrap_or(usize::MAX);
        let interface = result.get("interfaces").and_then(|all| all.get(index));
        let sandbox = interface
            .and_then(|i| i.get("sandbox"))
            .and_then(Value::as_str);
        sandbox.is_some_and(|sandbox| !sandbox.is_empty())
    };
    let ips = result.get("ips").and_then(Value::as_array);
    ips.into_iter()
        .flatten()
        .filter(|ip| in_pod(ip))
        .filter_map(|ip| ip.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect()
}

/// Of the list `cniVersions`, the newest that is spoken here; none without a list
/// (specification 1.1.0, section 1, "Network configuration format").
fn newest(config: &Value) -> Option<String> {
    const SPOKEN: [&str; 2] = ["1.1.0", "1.0.0"];
    let listed = config.get("cniVersions")?.as_array()?;
    let spoken = SPOKEN
        .iter()
        .find(|version| listed.iter().any(|one| one == *version));
    spoken.map(|version| (*version).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_of_the_list_is_taken() {
        for (versions, taken) in [
            (json!(["1.0.0", "1.1.0"]), "1.1.0"),
            (json!(["1.0.0", "9.0.0"]), "1.0.0"),
            (json!(["9.0.0"]), "0.4.0"),
            (json!(null), "0.4.0"),
        ] {
            let config = json!({
                "cniVersion": "0.4.0", "cniVersions": versions, "name": "net",
                "plugins": [{"type": "p"}],
            });
            let network = Network::parse(&config, Path::new("/bin")).unwrap();
            assert_eq!(network.version, taken, "{versions}");
        }
    }

    fn network(capabilities: Value) -> Network {
        let config = json!({
            "cniVersion": "1.1.0", "name": "net",
            "plugins": [{"type": "p", "socket": "s", "capabilities": capabilities}],
        });
        Network::parse(&config, Path::new("/bin")).unwrap()
    }

    #[test]
    fn execution_configuration() {
        let network = network(json!({"portMappings": true, "bandwidth": false}));
        let capabilities =
            json!({"portMappings": [1], "bandwidth": {"ingressRate": 1}, "mac": "x"});
        let attachment = Attachment {
            id: "id".to_owned(),
            netns: "/run/netns/x".into(),
            args: String::new(),
            capabilities: capabilities.as_object().unwrap().clone(),
        };
        let previous = json!({"ips": []});
        let config = network.config(&network.plugins[0], Some(&attachment), &previous);
        assert_eq!(
            Value::Object(config),
            json!({
                "cniVersion": "1.1.0", "name": "net", "type": "p", "socket": "s",
                "capabilities": {"portMappings": true, "bandwidth": false},
                "prevResult": {"ips": []}, "runtimeConfig": {"portMappings": [1]},
            })
        );
        let config = network.config(&network.plugins[0], None, &Value::Null);
        assert!(!config.contains_key("runtimeConfig") && !config.contains_key("prevResult"));
    }

    #[test]
    fn bad_configurations_say_what_is_missing() {
        for (config, problem) in [
            (json!({}), "field \"plugins\" is missing or empty"),
            (
                json!({"plugins": [{"type": "p"}]}),
                "field \"name\" is missing",
            ),
            (
                json!({"name": "n", "plugins": [{"type": "p"}]}),
                "field \"cniVersion\" is missing",
            ),
            (json!({"plugins": [{}]}), "not a plugin with a type: {}"),
        ] {
            assert_eq!(
                Network::parse(&config, Path::new("/bin")).unwrap_err(),
                problem
            );
        }
    }

    #[test]
    fn addresses_of_the_pod_only() {
        let result = json!({
            "interfaces": [{"name": "rs1"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
            "ips": [
                {"address": "10.244.1.5/32", "interface": 1},
                {"address": "10.244.1.1/24", "interface": 0},
                {"address": "fd00::5/128"},
            ],
        });
        let expected: [IpAddr; 2] = ["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses(&result), expected);
        assert!(addresses(&Value::Null).is_empty());
    }

    #[test]
    fn errors_of_plugins() {
        use std::os::unix::process::ExitStatusExt;
        let failure = |stdout: &str, stderr: &str| {
            message(&std::process::Output {
                status: std::process::ExitStatus::from_raw(256),
                stdout: stdout.into(),
                stderr: stderr.into(),
            })
        };
        assert_eq!(failure(r#"{"code": 100, "msg": "full"}"#, ""), "full");
        assert_eq!(
            failure(r#"{"msg": "full", "details": "10.0.0.0/24"}"#, ""),
            "full; 10.0.0.0/24"
        );
        assert_eq!(failure("", "panic\n"), "panic");
        assert_eq!(failure("", ""), "exit status: 1");
    }
}
