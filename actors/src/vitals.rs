//! What this process costs at this moment: memory, descriptors, threads. Only our own process is looked at.
//!
//! What the system does not tell is `None`, never zero. Off Linux it tells nothing. Nothing is judged here; `pressure.rs`
//! does that.

use std::{fs, time::Duration};

/// One look at this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Resident memory, in bytes. Beware: an allocator keeps it long after the heap has shrunk.
    pub rss_bytes: Option<u64>,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// The most descriptors this process may open (the soft limit); also `None` if it may open any number.
    pub fds_max: Option<u64>,
    /// The most address space this process may map, in bytes (the soft limit); also `None` if it may map any amount.
    pub address_space_max: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Processor time used since the start, in user and kernel mode, of all threads.
    pub cpu: Option<Duration>,
}

impl Vitals {
    /// Looks. Needs a free descriptor, reads four small files of the kernel and never waits: some 100 µs, a little more
    /// with every open descriptor.
    pub fn read() -> Self {
        // `status` rather than `statm`: it counts in kB, so nobody has to know the size of a page.
        let status = read_own("/proc/self/status");
        let limits = read_own("/proc/self/limits");
        Self {
            rss_bytes: rss_bytes(&status),
            open_fds: open_fds(),
            fds_max: soft_limit(&limits, "Max open files"),
            address_space_max: soft_limit(&limits, "Max address space"),
            threads: threads(&status),
            cpu: cpu(&read_own("/proc/self/stat")),
        }
    }
}

/// Empty where there is no such file, and then nothing is found in it.
fn read_own(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn rss_bytes(status: &str) -> Option<u64> {
    let resident = line_after(status, "VmRSS:")?.trim().strip_suffix("kB")?;
    resident.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn threads(status: &str) -> Option<u64> {
    line_after(status, "Threads:")?.trim().parse().ok()
}

/// The kernel counts in ticks of this rate for programs (`USER_HZ`), whatever it counts in itself.
const TICKS_PER_SECOND: u64 = 100;

/// The fields `utime` and `stime`, 14 and 15. The name of the program, field 2, may hold blanks and parentheses itself.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = fields.next()?.ok()?.checked_add(fields.next()?.ok()?)?;
    Some(Duration::from_millis(ticks.checked_mul(1000 / TICKS_PER_SECOND)?))
}

/// The first of three columns: soft limit, hard limit, unit. "unlimited" is no number.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    line_after(limits, name)?.split_whitespace().next()?.parse().ok()
}

/// The descriptor of the listing itself is not counted.
fn open_fds() -> Option<u64> {
    let listed = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(listed.saturating_sub(1))
}

fn line_after<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let vitals = Vitals::read();
        if cfg!(not(target_os = "linux")) {
            return assert_eq!(vitals, Vitals::default());
        }
        assert!(vitals.rss_bytes > Some(100_000), "{vitals:?}");
        assert!(vitals.threads >= Some(1), "{vitals:?}");
        assert!(vitals.cpu.is_some(), "{vitals:?}");
        assert!(vitals.open_fds >= Some(3), "{vitals:?}");
        assert!(vitals.fds_max.is_none_or(|max| vitals.open_fds < Some(max)), "{vitals:?}");
    }

    #[test]
    fn descriptors_are_counted() {
        // Other tests open and close some meanwhile, so take more than they do.
        let before = Vitals::read().open_fds;
        let files: Vec<_> = (0..300).map_while(|_| fs::File::open("/").ok()).collect();
        let after = Vitals::read().open_fds;
        if let (Some(before), Some(after)) = (before, after) {
            assert!(after + 100 > before + files.len() as u64, "{before}, then {after} with {} more", files.len());
        }
    }

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let status = "Name:\tperennial\nVmHWM:\t   99999 kB\nVmRSS:\t   20480 kB\nThreads:\t7\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             1                    2                    processes \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!((rss_bytes(status), threads(status)), (Some(20_971_520), Some(7)));
        let fds_max = |limits: &str| soft_limit(limits, "Max open files");
        assert_eq!(fds_max(limits), Some(1024));
        assert_eq!(fds_max("Max open files            unlimited            unlimited            files\n"), None);
        let address_space = "Max address space         268435456            unlimited            bytes     \n";
        assert_eq!(soft_limit(address_space, "Max address space"), Some(256 << 20));
        let stat = "7 (a ) (b) S 1 7 7 0 -1 4194560 31 0 1 0 250 50 3 4 20 0 9 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        for garbled in
            ["", "7", "7 (a) S 1 2", "7 (a) S 1 2 3 4 5 6 7 8 9 10 x 1", &stat.replace("250", &u64::MAX.to_string())]
        {
            assert_eq!(cpu(garbled), None, "{garbled}");
        }
        for garbled in ["", "VmRSS:", "VmRSS: kB", "VmRSS: 1 MB", "VmRSS: 99999999999999999999 kB", "Threads: -1"] {
            assert_eq!((rss_bytes(garbled), threads(garbled), fds_max(garbled)), (None, None, None), "{garbled}");
        }
        assert_eq!(rss_bytes(&format!("VmRSS: {} kB", u64::MAX)), None);
    }

    /// Of a file like this one a test can say it all: every path in it is our own.
    #[test]
    fn no_other_process_is_looked_at() {
        let code = include_str!("vitals.rs").split("#[cfg(test)]").next().expect("the code comes first");
        let paths: Vec<&str> = code.split('"').skip(1).step_by(2).filter(|text| text.contains('/')).collect();
        assert_eq!(paths, ["/proc/self/status", "/proc/self/limits", "/proc/self/stat", "/proc/self/fd"]);
        assert_eq!(code.matches("fs::").count(), 2, "one place reads files, one lists");
    }
}
