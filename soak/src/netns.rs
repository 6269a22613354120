//! Hosts as network namespaces: made, wired together, cut apart, moved and removed by the harness itself. Needs root and
//! the programs `ip` and `nft`.
//!
//! Everything lies in namespaces of our own making, the bridge between the hosts too; the machine's own network sees
//! nothing of it. Names carry their owner (`names.rs`), so that what a killed run left is removed by the next one
//! (`leftovers.rs`). Which node runs on which host is `place.rs`.

pub mod cuts;
pub mod leftovers;
pub mod names;
pub mod switch;
mod tap;
pub mod tools;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::sync::Mutex;

use self::{
    cuts::{Cut, between_groups, one_way},
    leftovers::{Leftovers, names, remove_namespaces},
    names::{HOSTS_MAX, Names, RANGE, address, hardware_text, home},
    switch::{child::Switch, interface, line::Conditions, table::Tallies},
    tools::{IP, NFT, PlaceError, must_be_root},
};

/// Hosts and what lies between them. Dropping it removes every namespace.
#[derive(Debug)]
pub struct Network {
    names: Names,
    /// How often each host has moved.
    moves: Vec<AtomicU32>,
    /// Before the namespaces, so that it goes before they do.
    switch: Option<Mutex<Switch>>,
    made: Namespaces,
}

/// What carries frames between the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wiring {
    /// A bridge of the kernel: nothing is lost, nothing takes time.
    Bridge,
    /// The harness's own switch, a process: every line delays, loses, doubles and reorders as it is told.
    Switch {
        /// `perennial-soak`, which is the switch when asked.
        program: PathBuf,
        /// What becomes of frames is drawn from it.
        seed: u64,
    },
}

/// A host has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The address it lost.
    pub from: Ipv4Addr,
    /// The address it got.
    pub to: Ipv4Addr,
}

/// Namespaces that exist, or are about to.
#[derive(Debug, Default)]
struct Namespaces(Vec<String>);

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove_namespaces(&self.0);
    }
}

impl Network {
    /// Makes so many hosts that reach each other, after removing what killed runs have left. Takes a twentieth of a
    /// second for three. Whatever ends this early, an error or the caller, removes what was made.
    ///
    /// # Errors
    /// A lack of the machine (no root, no `ip`, no `nft`), a number of hosts beyond [`HOSTS_MAX`], or what a program said.
    pub async fn new(hosts: usize, wiring: Wiring) -> Result<Self, PlaceError> {
        must_be_root("network namespaces")?;
        IP.find()?;
        NFT.find()?;
        if matches!(wiring, Wiring::Switch { .. }) && !Path::new(tap::DEVICE).exists() {
            let mend = "`modprobe tun`, or give the container the device";
            return Err(PlaceError::NoFile { path: tap::DEVICE, mend });
        }
        if hosts > HOSTS_MAX {
            return Err(PlaceError::Wrong(format!("{hosts} hosts; a network has room for {HOSTS_MAX}")));
        }
        Leftovers::find().remove();
        let names = names().ok_or(PlaceError::NoFile { path: "/proc/self/stat", mend: "mount /proc" })?;
        // Before the first one is made: removing what does not exist is no error, leaving what does would be.
        let all: Vec<String> = (0..hosts).map(|host| names.host(host)).chain([names.between()]).collect();
        let moves = (0..hosts).map(|_| AtomicU32::new(0)).collect();
        let mut network = Self { names, moves, switch: None, made: Namespaces(all) };
        network.make(&wiring).await?;
        if let Wiring::Switch { program, seed } = wiring {
            let prefix = prefix(&names.between())?;
            network.switch = Some(Mutex::new(Switch::start(&prefix, &program, hosts, seed).await?));
        }
        Ok(network)
    }

    async fn make(&self, wiring: &Wiring) -> Result<(), PlaceError> {
        let hosts = 0..self.hosts();
        let namespaces: String = self.made.0.iter().map(|name| format!("netns add {name}\n")).collect();
        IP.run(&["-batch", "-"], &namespaces).await?;
        self.ip(&self.names.between(), &between(&self.names, self.hosts(), wiring)).await?;
        for host in hosts {
            // A whole prefix to itself: moving takes no other address along, and the route stays.
            let own = format!(
                "link set dev lo up\nlink set dev eth0 addrgenmode none up\naddr add {}/32 dev eth0\nroute add {RANGE} dev eth0\n",
                home(host)
            );
            self.ip(&self.names.host(host), &own).await?;
        }
        self.nft(&["-f", "-"], cuts::RULES).await?;
        Ok(())
    }

    /// The words that go before a command so that it runs on a host. The process keeps its id: `ip` becomes it.
    pub fn prefix(&self, host: usize) -> Result<Vec<String>, PlaceError> {
        prefix(&self.names.host(host))
    }

    /// Number of hosts.
    pub fn hosts(&self) -> usize {
        self.moves.len()
    }

    /// The address of a host at this moment.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        address(host, self.moves[host].load(Ordering::Relaxed))
    }

    /// Names of the namespaces, for whoever wants to look into one.
    pub fn namespaces(&self) -> &[String] {
        &self.made.0
    }

    /// Cuts every pair of hosts in different groups, in both directions. A host in no group stays in reach of all. What
    /// was cut before stays cut. Answers the number of directed pairs.
    pub async fn partition(&self, groups: &[Vec<usize>]) -> Result<usize, PlaceError> {
        self.cut(&between_groups(groups)).await
    }

    /// Nothing from one side reaches the other any more; the way back stays open. Otherwise as [`Self::partition`].
    pub async fn one_way(&self, from: &[usize], to: &[usize]) -> Result<usize, PlaceError> {
        self.cut(&one_way(from, to)).await
    }

    async fn cut(&self, pairs: &[(usize, usize)]) -> Result<usize, PlaceError> {
        if let Some(stranger) = pairs.iter().flat_map(|(from, to)| [*from, *to]).find(|host| *host >= self.hosts()) {
            return Err(PlaceError::Wrong(format!("host {stranger} of {}", self.hosts())));
        }
        self.nft(&["-f", "-"], &cuts::add(pairs)).await?;
        Ok(pairs.len())
    }

    /// What is cut, and how many frames each cut has dropped: that it cut anything is a fact with a number.
    pub async fn cuts(&self) -> Result<Vec<Cut>, PlaceError> {
        let text = self.nft(&cuts::LIST, "").await?;
        cuts::parse(&text).map_err(|words| PlaceError::Failed { command: "nft -j list set".into(), words })
    }

    /// Ends every cut. Answers what each had dropped until just before.
    pub async fn heal(&self) -> Result<Vec<Cut>, PlaceError> {
        let cuts = self.cuts().await?;
        self.nft(&["-f", "-"], cuts::FLUSH).await?;
        Ok(cuts)
    }

    /// A live host loses its address and gets another, new for the next 256 moves. The new one comes first, so that it is
    /// never without; what is bound to the old one is not told. To survive it a node listens to every address. One move of a
    /// host at a time.
    pub async fn flip_address(&self, host: usize) -> Result<Move, PlaceError> {
        let Some(moves) = self.moves.get(host).map(|moves| moves.load(Ordering::Relaxed) + 1) else {
            return Err(PlaceError::Wrong(format!("host {host} of {}", self.hosts())));
        };
        let (from, to) = (self.address(host), address(host, moves));
        let batch = format!("addr add {to}/32 dev eth0\naddr del {from}/32 dev eth0\n");
        self.ip(&self.names.host(host), &batch).await?;
        self.moves[host].store(moves, Ordering::Relaxed);
        Ok(Move { from, to })
    }

    /// Both directions between two hosts are like this from the next frame on. So a delay counts twice in a round trip.
    ///
    /// # Errors
    /// The hosts are wired by a bridge, which can do none of it; or what was asked for cannot be.
    pub async fn link(&self, a: usize, b: usize, conditions: Conditions) -> Result<(), PlaceError> {
        self.line(a, b, conditions).await?;
        self.line(b, a, conditions).await
    }

    /// As [`Self::link`], in one direction.
    pub async fn line(&self, from: usize, to: usize, conditions: Conditions) -> Result<(), PlaceError> {
        self.switch()?.lock().await.set(from, to, conditions).await
    }

    /// As [`Self::link`], between all hosts.
    pub async fn links(&self, conditions: Conditions) -> Result<(), PlaceError> {
        for a in 0..self.hosts() {
            for b in a + 1..self.hosts() {
                self.link(a, b, conditions).await?;
            }
        }
        Ok(())
    }

    /// What the switch has done so far, line by line: that anything was lost or late is a fact with a number.
    pub async fn tallies(&self) -> Result<Tallies, PlaceError> {
        self.switch()?.lock().await.tell().await
    }

    /// The switch's process, whose processor time is neither the nodes' nor the harness's.
    pub async fn switch_pid(&self) -> Option<u32> {
        match &self.switch {
            Some(switch) => switch.lock().await.pid(),
            None => None,
        }
    }

    fn switch(&self) -> Result<&Mutex<Switch>, PlaceError> {
        let bridged = || PlaceError::Wrong("the hosts are wired by a bridge, which delays and loses nothing".into());
        self.switch.as_ref().ok_or_else(bridged)
    }

    /// Runs a program on a host to its end and answers what it printed. For looking, not for nodes.
    pub async fn look(&self, host: usize, command: &[&str]) -> Result<String, PlaceError> {
        let namespace = self.names.host(host);
        IP.run(&[&["netns", "exec", namespace.as_str()], command].concat(), "").await
    }

    async fn ip(&self, namespace: &str, batch: &str) -> Result<(), PlaceError> {
        IP.run(&["-n", namespace, "-batch", "-"], batch).await.map(drop)
    }

    async fn nft(&self, args: &[&str], input: &str) -> Result<String, PlaceError> {
        let between = self.names.between();
        let nft = NFT.find()?.display().to_string();
        IP.run(&[&["netns", "exec", between.as_str(), &nft], args].concat(), input).await
    }
}

fn prefix(namespace: &str) -> Result<Vec<String>, PlaceError> {
    let ip = IP.find()?.display().to_string();
    Ok(vec![ip, "netns".into(), "exec".into(), namespace.into()])
}

/// What lies between the hosts, as `ip -batch` is told. With a switch, every host gets a bridge of its own with the switch's
/// interface on the other side: so the same cuts hold in both wirings.
fn between(names: &Names, hosts: usize, wiring: &Wiring) -> String {
    let mut batch = String::new();
    let mut bridge = |name: &str| {
        batch += &format!("link add name {name} type bridge stp_state 0 mcast_snooping 0\n");
        batch += &format!("link set dev {name} addrgenmode none up\n");
    };
    match wiring {
        Wiring::Bridge => bridge("between"),
        Wiring::Switch { .. } => (0..hosts).for_each(|host| bridge(&format!("b{host}"))),
    }
    for host in 0..hosts {
        let (namespace, hardware) = (names.host(host), hardware_text(host));
        batch += &format!("link add name v{host} type veth peer name eth0 address {hardware} netns {namespace}\n");
        let bridge = match wiring {
            Wiring::Bridge => "between".to_owned(),
            Wiring::Switch { .. } => {
                let tap = interface(host);
                batch += &format!("tuntap add dev {tap} mode tap\n");
                batch += &format!("link set dev {tap} addrgenmode none master b{host} up\n");
                format!("b{host}")
            }
        };
        batch += &format!("link set dev v{host} addrgenmode none master {bridge} up\n");
    }
    batch
}
