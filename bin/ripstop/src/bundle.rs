//! `ripstop status --bundle`: one file for a report of a fault.
//!
//! What is in it: what the agent says of itself, services, policies and drift as
//! the engine has them, records of pods, and the machine's network. What is not:
//! kubeconfigs, tokens and keys, and the names that pods asked for.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::Value;

use crate::agent::{Ask, Machine, PolicyAsk, ask};

/// Questions to the agent, and the files that their answers are.
fn questions() -> [(&'static str, Ask); 4] {
    let services = Ask::Services {
        namespace: None,
        name: None,
    };
    [
        ("status.json", Ask::Status),
        ("services.json", services),
        ("verify.json", Ask::Verify),
        ("policy-drops.json", Ask::Policy(PolicyAsk::Drops)),
    ]
}

/// Writes the bundle; gives the names of what is in it.
///
/// # Errors
/// If the file cannot be written. What cannot be had is said in its `CONTENTS.txt`.
pub(crate) fn write(run_dir: &Path, to: &Path) -> Result<Vec<String>> {
    let file = File::create(to).with_context(|| format!("bundle {}", to.display()))?;
    let mut bundle = Bundle::new(GzEncoder::new(file, Compression::default()));
    for (name, question) in questions() {
        match ask::<Value>(run_dir, &question) {
            Ok(answer) => bundle.add_json(name, &answer)?,
            Err(error) => bundle.lacks(name, &format!("{error:#}")),
        }
    }
    for folder in ["pods", "."] {
        bundle.add_records(&run_dir.join(folder))?;
    }
    match ask::<Machine>(run_dir, &Ask::Machine) {
        Ok(machine) => {
            for (name, text) in &machine.files {
                bundle.add(&format!("machine/{name}"), text.as_bytes())?;
            }
            for (name, why) in &machine.missing {
                bundle.lacks(&format!("machine/{name}"), why);
            }
        }
        Err(error) => bundle.lacks("machine", &format!("{error:#}")),
    }
    let (names, archive) = bundle.finish()?;
    archive.finish()?.sync_all()?;
    Ok(names)
}

struct Bundle<W: Write> {
    archive: tar::Builder<W>,
    names: Vec<String>,
    contents: String,
    now: u64,
}

impl<W: Write> Bundle<W> {
    fn new(to: W) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            archive: tar::Builder::new(to),
            names: Vec::new(),
            contents: String::new(),
            now: now.map_or(0, |now| now.as_secs()),
        }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.now);
        let path = format!("ripstop/{name}");
        self.archive.append_data(&mut header, path, bytes)?;
        self.names.push(name.to_owned());
        let _ = writeln!(self.contents, "{name}: {} bytes", bytes.len());
        Ok(())
    }

    fn add_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        self.add(name, &serde_json::to_vec_pretty(value)?)
    }

    fn lacks(&mut self, name: &str, why: &str) {
        let _ = writeln!(self.contents, "{name}: MISSING, {why}");
    }

    /// The agent's own files that are JSON: addresses and names of pods.
    fn add_records(&mut self, folder: &Path) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            // One that has just gone is of a pod that has.
            if let Ok(bytes) = std::fs::read(&path) {
                self.add(&format!("run/{}", name.to_string_lossy()), &bytes)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<String>, W)> {
        let contents = std::mem::take(&mut self.contents);
        self.add("CONTENTS.txt", contents.as_bytes())?;
        Ok((self.names, self.archive.into_inner()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_says_what_it_lacks() {
        let mut bundle = Bundle::new(Vec::new());
        bundle.add("a.txt", b"hello").unwrap();
        bundle.lacks("b.txt", "the agent is busy");
        let (names, bytes) = bundle.finish().unwrap();
        assert_eq!(names, ["a.txt", "CONTENTS.txt"]);
        let mut archive = tar::Archive::new(&bytes[..]);
        let texts: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| std::io::read_to_string(entry.unwrap()).unwrap())
            .collect();
        assert_eq!(
            texts,
            [
                "hello",
                "a.txt: 5 bytes\nb.txt: MISSING, the agent is busy\n"
            ]
        );
    }
}
