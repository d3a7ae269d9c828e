//! `cargo xtask kernel -- COMMAND`: runs a command on Debian's own kernel, which
//! is older than many machines' and has modules that they lack (SCTP, IPVS,
//! WireGuard), or on that of packages that one has. A virtual machine without
//! acceleration boots it in some seconds; it sees this machine's files, and what
//! it writes goes to its memory.

mod image;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::run::install;

const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("busybox-static", "/bin/busybox"),
    ("cpio", "/usr/bin/cpio"),
    ("kmod", "/usr/sbin/modprobe"),
];
const PACKAGE: &str = "linux-image-amd64";
/// MiB.
const MEMORY: u32 = 4096;
/// How the command ended, told on the machine's console.
const ENDED: &str = "command ended with ";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Package of the kernel.
    #[arg(long, default_value = PACKAGE)]
    package: String,
    /// Files of a kernel's packages instead, of another Debian or Ubuntu (there
    /// linux-image, linux-modules and linux-modules-extra).
    #[arg(long, value_delimiter = ',', conflicts_with = "package")]
    deb: Vec<PathBuf>,
    /// Memory of the virtual machine, MiB.
    #[arg(long, default_value_t = MEMORY)]
    memory: u32,
    /// Virtual CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Minutes after which the machine is switched off.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Kernel modules to load first.
    #[arg(long, value_delimiter = ',')]
    modules: Vec<String>,
    /// Run as root at the repository's top; for example
    /// `target/release/ripstop lab demo`.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs a command on the kernel that has these modules.
pub(crate) fn run_with(modules: &[&str], minutes: u64, command: &[&str]) -> Result<()> {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    run(&Args {
        package: PACKAGE.to_owned(),
        deb: Vec::new(),
        memory: MEMORY,
        cpus: 2,
        minutes,
        modules: text(modules),
        command: text(command),
    })
}

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "the virtual machine is an x86_64"
    );
    install(TOOLS)?;
    let name = match args.deb.first() {
        Some(file) => file.file_stem().context("a package's file")?,
        None => args.package.as_ref(),
    };
    let folder = std::path::absolute("target/kernel")?.join(name);
    let image = image::prepare(&folder, &args.package, &args.deb)?;
    let script = tempfile::NamedTempFile::new_in(&folder)?;
    std::fs::write(&script, inside(&args.modules, &args.command)?)?;
    let initrd = image.initrd(script.path())?;
    ensure!(boot(args, &image, initrd.path())?, "the command failed");
    Ok(())
}

/// What the machine runs once it sees this one's files.
fn inside(modules: &[String], command: &[String]) -> Result<String> {
    let folder = std::env::current_dir()?;
    let modules = match modules {
        [] => String::new(),
        modules => format!("modprobe -a {}\n", quoted(modules)),
    };
    Ok(format!(
        "export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
         uname -a\ncd {}\n{modules}{}\necho \"{ENDED}$?\"\necho o > /proc/sysrq-trigger\nsleep 60\n",
        quoted(&[folder
            .to_str()
            .context("path of the repository")?
            .to_owned()]),
        quoted(command),
    ))
}

fn quoted(words: &[String]) -> String {
    let quote = |word: &String| format!("'{}'", word.replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Runs the machine to its end. True if its command succeeded.
fn boot(args: &Args, image: &image::Image, initrd: &Path) -> Result<bool> {
    let share = |path: &Path, tag: &str| {
        format!(
            "local,path={},mount_tag={tag},security_model=none,readonly=on,multidevs=remap",
            path.display()
        )
    };
    let mut machine = Command::new("qemu-system-x86_64")
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
        ])
        .args(["-nographic", "-no-reboot", "-nic", "none"])
        .args([
            "-smp",
            &args.cpus.to_string(),
            "-m",
            &args.memory.to_string(),
        ])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .args(["-virtfs", &share(Path::new("/"), "host")])
        .args(["-virtfs", &share(&image.modules, "modules")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start qemu-system-x86_64")?;
    let console = machine.stdout.take().context("the machine's console")?;
    let (sender, ended) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let status = image::copy_console(console, ENDED);
        let _ = sender.send(());
        status
    });
    let in_time = ended
        .recv_timeout(Duration::from_secs(args.minutes * 60))
        .is_ok();
    if !in_time {
        machine.kill()?;
    }
    machine.wait()?;
    let status = reader.join().ok().flatten();
    if !in_time {
        bail!("not done after {} minutes", args.minutes);
    }
    Ok(status.context("the machine ended before its command")? == 0)
}
