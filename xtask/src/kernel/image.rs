//! Debian's kernel, unpacked, and the little file system that it starts from.

use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use crate::run::checked;

/// What it takes to see the files of the machine outside.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// An unpacked kernel.
pub(super) struct Image {
    folder: PathBuf,
    /// Where `lib/modules` is.
    base: PathBuf,
    release: String,
    pub(super) kernel: PathBuf,
    /// `lib/modules`.
    pub(super) modules: PathBuf,
}

/// Unpacks these files, or the package, which it downloads, unless that has been
/// done.
pub(super) fn prepare(folder: &Path, package: &str, files: &[PathBuf]) -> Result<Image> {
    let root = folder.join("root");
    if !root.exists() {
        std::fs::create_dir_all(folder)?;
        let unpacked = tempfile::tempdir_in(folder)?;
        if files.is_empty() {
            let file = download(folder, package)?;
            unpack(&file, unpacked.path())?;
            std::fs::remove_file(file)?;
        }
        for file in files {
            unpack(file, unpacked.path())?;
        }
        std::fs::rename(unpacked.keep(), &root)?;
    }
    let base = [root.clone(), root.join("usr")]
        .into_iter()
        .find(|base| base.join("lib/modules").exists())
        .context("the package has no modules")?;
    let modules = base.join("lib/modules");
    let release = std::fs::read_dir(&modules)?
        .next()
        .context("the package has no modules")??
        .file_name()
        .into_string()
        .ok()
        .context("name of the kernel")?;
    checked(
        Command::new("/usr/sbin/depmod")
            .arg("-b")
            .arg(&base)
            .arg(&release),
    )?;
    Ok(Image {
        folder: folder.to_owned(),
        base,
        kernel: root.join(format!("boot/vmlinuz-{release}")),
        modules,
        release,
    })
}

/// The file of the package.
fn download(folder: &Path, package: &str) -> Result<PathBuf> {
    // The package without a version only depends on the one that has it.
    let name = depends(package)?.unwrap_or_else(|| package.to_owned());
    checked(
        Command::new("apt-get")
            .args(["-qq", "download", &name])
            .current_dir(folder),
    )?;
    std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .context("the downloaded package")
}

fn unpack(file: &Path, into: &Path) -> Result<()> {
    checked(Command::new("dpkg-deb").arg("-x").arg(file).arg(into))
}

fn depends(package: &str) -> Result<Option<String>> {
    let output = Command::new("apt-cache")
        .args(["depends", package])
        .output()?;
    ensure!(output.status.success(), "apt knows no package {package}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned))
}

impl Image {
    /// The first file system: it loads modules, puts a writable layer over the
    /// outer machine's files, and runs `script` there.
    pub(super) fn initrd(&self, script: &Path) -> Result<NamedTempFile> {
        let root = tempfile::tempdir_in(&self.folder)?;
        for name in ["bin", "dev", "mods", "new", "proc", "ro", "rw", "sys"] {
            std::fs::create_dir(root.path().join(name))?;
        }
        std::fs::copy("/bin/busybox", root.path().join("bin/busybox"))?;
        let mut init = String::from(
            "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nPATH=/bin\n\
             mount -t proc p /proc\nmount -t sysfs s /sys\nmount -t devtmpfs d /dev\n",
        );
        for (index, module) in self.needed_modules()?.iter().enumerate() {
            let plain = File::create(root.path().join(format!("mods/{index}")))?;
            let tool = match module.extension().and_then(|kind| kind.to_str()) {
                Some("zst") => "zstdcat",
                Some("xz") => "xzcat",
                _ => "cat",
            };
            checked(Command::new(tool).arg(module).stdout(plain))?;
            writeln!(init, "insmod /mods/{index}")?;
        }
        let files = "trans=virtio,version=9p2000.L,msize=262144,ro";
        writeln!(
            init,
            "mount -t 9p -o {files} host /ro\nmount -t tmpfs -o size=70% t /rw\nmkdir /rw/upper /rw/work\n\
             mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work o /new\n\
             cd /new\nmkdir -p lib/modules\n\
             mount -t proc p proc\nmount -t sysfs s sys\nmount -t devtmpfs d dev\n\
             mkdir -p dev/pts\nmount -t devpts d dev/pts\n\
             mount -t tmpfs t run\nmount -t tmpfs t tmp\nmount -t cgroup2 c sys/fs/cgroup\n\
             mount -t 9p -o {files} modules lib/modules\nip link set lo up\n\
             cp {script} tmp/command\nexec switch_root /new /bin/sh /tmp/command",
            script = Path::new("/new").join(script.strip_prefix("/")?).display(),
        )?;
        let path = root.path().join("init");
        std::fs::write(&path, init)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let archive = NamedTempFile::new_in(&self.folder)?;
        checked(
            Command::new("sh")
                .args(["-c", "find . | cpio --quiet -o -H newc"])
                .current_dir(root.path())
                .stdout(Stdio::from(archive.reopen()?)),
        )?;
        Ok(archive)
    }

    /// Files of [`MODULES`] and of what they depend on, in the order of loading.
    fn needed_modules(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for module in MODULES {
            let output = Command::new("/usr/sbin/modprobe")
                .arg("-d")
                .arg(&self.base)
                .args(["-S", &self.release, "--show-depends", module])
                .output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            for file in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let file = PathBuf::from(file.trim());
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// Copies the console to standard output, up to the line that says how the
/// command ended; that status.
pub(super) fn copy_console(console: impl Read, ended: &str) -> Option<i32> {
    let mut status = None;
    for line in BufReader::new(console).split(b'\n') {
        let line = String::from_utf8_lossy(&line.ok()?).into_owned();
        if let Some(number) = line.trim().strip_prefix(ended) {
            status = number.parse().ok();
        } else if status.is_none() {
            println!("{line}");
        }
    }
    status
}
