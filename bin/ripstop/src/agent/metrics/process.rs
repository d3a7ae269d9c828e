//! What the kernel knows of this process.
//! <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>

use nix::unistd::{SysconfVar, sysconf};

use super::page::Page;

/// What cannot be read is left out.
pub(super) fn write(page: &mut Page) {
    if let Some((cpu, resident)) = used() {
        let help = "User and system CPU time.";
        page.counter("process_cpu_seconds_total", help, cpu);
        page.gauge("process_resident_memory_bytes", "Memory in use.", resident);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        // One of them reads the folder.
        let count = files.count().saturating_sub(1);
        page.gauge("process_open_fds", "Open file descriptors.", count);
    }
}

/// CPU seconds and resident bytes (proc_pid_stat(5)).
fn used() -> Option<(f64, i64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may have spaces; the state comes after it.
    let numbers = stat.rsplit_once(')')?.1.split_whitespace().skip(1);
    let numbers: Vec<i64> = numbers.map(|n| n.parse().unwrap_or_default()).collect();
    // Counted from 1 and with pid, name and state, these are fields 14, 15 and 24.
    let (user, system, pages) = (numbers.get(10)?, numbers.get(11)?, numbers.get(20)?);
    let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
    Some(((user + system) as f64 / ticks as f64, pages * page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let (cpu, resident) = used().unwrap();
        assert!(cpu >= 0.0);
        assert!((1 << 20..1_i64 << 40).contains(&resident), "{resident}");
    }
}
