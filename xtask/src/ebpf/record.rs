//! What the committed object was made of, in a file beside it: so a test that
//! needs no compiler for the kernel finds an object that is older than its source.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::tools::{LINKER_VERSION, output};
use super::{CARGO, OBJECT};

/// Beside [`OBJECT`].
const RECORD: &str = "crates/datapath/src/ebpf/programs.sources";
const HEAD: &str = "# What programs.bpf.o was made of. `cargo xtask ebpf` writes this file.";
/// What the compiler's list of sources does not have.
const MANIFESTS: [&str; 3] = [
    "crates/abi/Cargo.toml",
    "ebpf/Cargo.lock",
    "ebpf/Cargo.toml",
];

#[derive(Debug, PartialEq, Eq)]
struct Record {
    /// Release of the compiler.
    compiler: String,
    /// SHA-256 of the object.
    object: String,
    /// SHA-256 of the sources' and of the build's settings. One for all of them:
    /// whoever merges two changes of sources has a conflict here, or an old sum.
    sources: String,
    /// Relative to the repository, sorted. A new one is named by one of these.
    files: Vec<String>,
}

/// Writes down what the object beside it was made of, which the compiler has listed
/// in `listed`, a file in the form of `make`.
pub(super) fn write(root: &Path, compiler: &str, listed: &Path) -> Result<()> {
    let list = fs::read_to_string(listed).with_context(|| listed.display().to_string())?;
    let files = sources(&list, root)?;
    let record = Record {
        compiler: compiler.to_owned(),
        object: sum_of_file(root, OBJECT)?,
        sources: sum_of_all(root, &files)?,
        files,
    };
    let path = root.join(RECORD);
    fs::write(&path, record.text()).with_context(|| path.display().to_string())
}

/// Whether the committed object is of the sources as they are now.
///
/// # Errors
/// If it is not, with what to do.
pub(super) fn check(root: &Path) -> Result<()> {
    let path = root.join(RECORD);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let record = Record::parse(&text).with_context(|| format!("{RECORD} is damaged"))?;
    let what_to_do = "run `cargo xtask ebpf`, and commit what it writes";
    ensure!(
        sum_of_all(root, &record.files)? == record.sources,
        "{OBJECT} is older than ebpf/ or crates/abi: {what_to_do}"
    );
    ensure!(
        sum_of_file(root, OBJECT)? == record.object,
        "{OBJECT} is not the one that {RECORD} tells of: {what_to_do}"
    );
    Ok(())
}

impl Record {
    fn text(&self) -> String {
        let Self {
            compiler,
            object,
            sources,
            files,
        } = self;
        format!(
            "{HEAD}\ncompiler {compiler}\nobject {object}\nsources {sources}\n{}\n",
            files.join("\n")
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().skip(1);
        let mut field = |name: &str| Some(lines.next()?.strip_prefix(name)?.trim().to_owned());
        let (compiler, object, sources) = (field("compiler")?, field("object")?, field("sources")?);
        Some(Self {
            compiler,
            object,
            sources,
            files: lines.map(str::to_owned).collect(),
        })
    }
}

/// The files of the repository in a list that the compiler wrote, and manifests.
fn sources(list: &str, root: &Path) -> Result<Vec<String>> {
    let (_, list) = list.split_once(": ").context("a list of sources")?;
    // Spaces in names are written with a backslash before them.
    let list = list.trim().replace("\\ ", "\0");
    let ours = list.split(' ').filter_map(|file| {
        let file = PathBuf::from(file.replace('\0', " "));
        Some(file.strip_prefix(root).ok()?.to_str()?.to_owned())
    });
    let mut files: Vec<String> = ours.chain(MANIFESTS.map(str::to_owned)).collect();
    files.sort();
    Ok(files)
}

/// SHA-256 of one file.
fn sum_of_file(root: &Path, file: &str) -> Result<String> {
    first_word(&output(
        Command::new("sha256sum").current_dir(root).arg(file),
    )?)
}

/// SHA-256 of files by name, and of how they are compiled.
fn sum_of_all(root: &Path, files: &[String]) -> Result<String> {
    let each = output(Command::new("sha256sum").current_dir(root).args(files))?;
    let mut sums = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("sha256sum")?;
    let mut to = sums.stdin.take().context("sha256sum")?;
    write!(to, "{CARGO:?} {LINKER_VERSION}\n{each}")?;
    drop(to);
    first_word(&String::from_utf8(sums.wait_with_output()?.stdout)?)
}

/// Of what `sha256sum` prints: the sum.
fn first_word(printed: &str) -> Result<String> {
    let sum = printed.split(' ').next().filter(|sum| sum.len() == 64);
    Ok(sum.context("sha256sum prints no sum")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::root;
    use super::*;

    #[test]
    fn the_committed_object_is_of_these_sources() {
        check(&root()).unwrap();
    }

    #[test]
    fn an_object_older_than_its_sources_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let lib = root.join("crates/abi/src/lib.rs");
        for file in MANIFESTS.iter().chain(&[OBJECT]) {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "as it was").unwrap();
        }
        fs::create_dir_all(lib.parent().unwrap()).unwrap();
        fs::write(&lib, "as it was").unwrap();
        let list = root.join("programs.d");
        let library = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";
        fs::write(&list, format!("programs: {} {library}\n", lib.display())).unwrap();

        write(root, "1.95.0", &list).unwrap();
        check(root).unwrap();
        for (file, said) in [
            (lib, "is older than ebpf/ or crates/abi"),
            (root.join("ebpf/Cargo.lock"), "is older than"),
            (root.join(OBJECT), "is not the one that"),
        ] {
            fs::write(&file, "changed").unwrap();
            let error = check(root).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(error.contains("cargo xtask ebpf"), "{error}");
            fs::write(&file, "as it was").unwrap();
            check(root).unwrap();
        }
    }

    #[test]
    fn sources_are_those_of_the_repository() {
        let list = "/r/x: /r/ebpf/src/main.rs /r/crates/abi/src/a\\ b.rs /elsewhere/core.rs\n";
        let files = sources(list, Path::new("/r")).unwrap();
        let expected = [
            "crates/abi/Cargo.toml",
            "crates/abi/src/a b.rs",
            "ebpf/Cargo.lock",
            "ebpf/Cargo.toml",
            "ebpf/src/main.rs",
        ];
        assert_eq!(files, expected);
    }
}
