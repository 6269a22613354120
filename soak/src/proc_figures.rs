//! Figures of one process as the kernel tells them: processor time, memory, descriptors, threads, lost datagrams.
//! Linux only. What cannot be read is `None`, never zero. Only processes this program started are looked at.

use std::{fs, net::SocketAddrV4, time::Duration};

/// Processor time of all living threads of a process, user and system. To the nanosecond where the kernel keeps
/// scheduler statistics; a thread that has ended takes its share with it, which a node's threads do not.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let mut sum_ns = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let path = thread.ok()?.path().join("schedstat");
        // A thread may end between the listing and the look.
        let Ok(text) = fs::read_to_string(path) else { continue };
        sum_ns += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum_ns))
}

/// Resident memory at this moment and its high-water mark, in bytes.
pub fn resident(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

/// Open file descriptors.
pub fn open_fds(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64)
}

/// Threads.
pub fn threads(pid: u32) -> Option<u64> {
    Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count() as u64)
}

/// Datagrams the kernel dropped in front of the UDP socket bound to `address`, because its buffer was full. They never
/// reached the process: a loss of the machine, not of the node.
pub fn udp_drops(address: SocketAddrV4) -> Option<u64> {
    let table = fs::read_to_string("/proc/net/udp").ok()?;
    // The kernel prints the address as it lies in memory.
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let line = table.lines().skip(1).find(|line| line.split_whitespace().nth(1) == Some(local.as_str()))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_itself() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let mut sum = 0_u64;
        while cpu_time(me).unwrap() <= before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let (now, peak) = resident(me).unwrap();
        assert!(now > 100_000 && peak >= now, "{now} {peak}");
        assert!(open_fds(me).unwrap() >= 3);
        assert!(threads(me).unwrap() >= 1);
    }

    #[test]
    fn a_full_socket_loses_datagrams_and_the_kernel_says_so() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let std::net::SocketAddr::V4(local) = address else { panic!("{address} is not IPv4") };
        assert_eq!(udp_drops(local), Some(0));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..10_000 {
            let _ = sender.send_to(&[0; 1200], address);
        }
        assert!(udp_drops(local).unwrap() > 0);
    }
}
