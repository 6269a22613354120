//! Where the nodes of a run are: the one seam between the harness and whatever carries its processes.
//!
//! A place says how a node's process is started, which address it binds, and does what can be done to its network, its disk
//! and its clock. Starting, listening to and killing the process is for whoever holds the place. Another kind of place, a
//! fleet say, is another variant of [`Net`].

pub mod clock;
pub mod collector;
pub mod disk;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use tokio::process::Command;

use self::{
    clock::WallClock,
    collector::{Collector, Mood},
    disk::SmallDisk,
};
use crate::netns::{
    Move, Network, Wiring,
    cuts::Cut,
    switch::{line::Conditions, table::Tallies},
    tools::PlaceError,
};

/// Where nodes run, and what was prepared for single ones. Dropping it removes all that it made.
#[derive(Debug)]
pub struct Place {
    net: Net,
    moving: BTreeSet<usize>,
    disks: BTreeMap<usize, SmallDisk>,
    clocks: BTreeMap<usize, WallClock>,
    collector: Option<Collector>,
}

/// What lies between the nodes.
#[derive(Debug)]
pub enum Net {
    /// Child processes on 127.0.0.1.
    Loopback,
    /// A host of its own for every node.
    Namespaces(Box<Network>),
}

/// The settings of whoever runs the harness are not the nodes'. Nor do nodes probe themselves: what is counted would differ
/// from one look to the next.
pub fn isolate(command: &mut Command) {
    command.env_remove("IROH_SECRET").env("PERENNIAL_CONFIG", "/dev/null").env("PERENNIAL_PROBE_INTERVAL", "0s");
}

impl Place {
    /// All nodes are child processes on 127.0.0.1.
    pub fn loopback() -> Self {
        Self::on(Net::Loopback)
    }

    /// Every node has a host of its own, made now.
    ///
    /// # Errors
    /// What the machine lacks, or what went wrong; nothing is left behind.
    pub async fn namespaces(nodes: usize, wiring: Wiring) -> Result<Self, PlaceError> {
        Ok(Self::on(Net::Namespaces(Box::new(Network::new(nodes, wiring).await?))))
    }

    fn on(net: Net) -> Self {
        Self { net, moving: BTreeSet::new(), disks: BTreeMap::new(), clocks: BTreeMap::new(), collector: None }
    }

    /// The command that starts a program where `node` is, by the clock it has. The child's process id is the program's.
    pub fn command(&self, node: usize, program: &Path) -> Result<Command, PlaceError> {
        let mut command = match &self.net {
            Net::Loopback => Command::new(program),
            Net::Namespaces(network) => {
                let prefix = network.prefix(node)?;
                let mut command = Command::new(&prefix[0]);
                command.args(&prefix[1..]).arg(program);
                command
            }
        };
        if let Some(clock) = self.clocks.get(&node) {
            clock.apply(&mut command);
        }
        isolate(&mut command);
        if self.collector.is_some() {
            command.envs(Collector::environment());
        }
        Ok(command)
    }

    /// A command of [`Self::command`] was started.
    pub fn started(&self, node: usize, pid: u32) {
        if let Some(clock) = self.clocks.get(&node) {
            clock.is_of(pid);
        }
    }

    /// What `up` is told about its place, but for the address: [`Self::listen`].
    pub fn arguments(&self, node: usize) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(disk) = self.disks.get(&node) {
            arguments.extend(["--state-dir".into(), disk.directory().into()]);
        }
        if let Some(collector) = &self.collector {
            arguments.extend(collector.arguments().map(OsString::from));
        }
        arguments
    }

    /// The address a node listens on; `None` on loopback, where the default is right.
    pub fn listen(&self, node: usize) -> Option<IpAddr> {
        match &self.net {
            Net::Loopback => None,
            // Every address of a host of our own: nobody else is there.
            Net::Namespaces(_) if self.moving.contains(&node) => Some(Ipv4Addr::UNSPECIFIED.into()),
            Net::Namespaces(network) => Some(network.address(node).into()),
        }
    }

    /// Where a node is reached at this moment, given the `IP:PORT` or `ID@IP:PORT` it told when it was ready.
    pub fn reached_at(&self, node: usize, told: &str) -> String {
        let port = || told.rsplit_once(':').map(|(_, port)| port);
        let id = told.split_once('@').map(|(id, _)| format!("{id}@")).unwrap_or_default();
        match (&self.net, port()) {
            (Net::Namespaces(network), Some(port)) => format!("{id}{}:{port}", network.address(node)),
            (Net::Namespaces(_), None) | (Net::Loopback, _) => told.to_owned(),
        }
    }

    /// Before its start: `node` will move, so it listens to every address of its host.
    pub fn will_move(&mut self, node: usize) {
        self.moving.insert(node);
    }

    /// Before its start: `node` gets a state directory of [`disk::BYTES`], mounted at `directory`.
    pub async fn give_disk(&mut self, node: usize, directory: &Path) -> Result<(), PlaceError> {
        let disk = SmallDisk::mount(directory, node, disk::BYTES).await?;
        self.disks.insert(node, disk);
        Ok(())
    }

    /// Before its start: `node` gets a wall clock that [`Self::set_clock`] can set, kept in `file`.
    pub fn give_clock(&mut self, node: usize, file: &Path) -> Result<(), PlaceError> {
        self.clocks.insert(node, WallClock::new(file)?);
        Ok(())
    }

    /// Before their start: every node sends its telemetry to a collector of the harness, on 127.0.0.1.
    pub fn give_collector(&mut self) -> Result<(), PlaceError> {
        let collector = Collector::start()
            .map_err(|error| PlaceError::Failed { command: "listen on 127.0.0.1".into(), words: error.to_string() })?;
        self.collector = Some(collector);
        Ok(())
    }

    /// See [`Network::partition`].
    pub async fn partition(&self, groups: &[Vec<usize>]) -> Result<usize, PlaceError> {
        self.network()?.partition(groups).await
    }

    /// See [`Network::one_way`].
    pub async fn one_way(&self, from: &[usize], to: &[usize]) -> Result<usize, PlaceError> {
        self.network()?.one_way(from, to).await
    }

    /// See [`Network::cuts`].
    pub async fn cuts(&self) -> Result<Vec<Cut>, PlaceError> {
        self.network()?.cuts().await
    }

    /// See [`Network::heal`].
    pub async fn heal(&self) -> Result<Vec<Cut>, PlaceError> {
        self.network()?.heal().await
    }

    /// See [`Network::link`].
    pub async fn link(&self, a: usize, b: usize, conditions: Conditions) -> Result<(), PlaceError> {
        self.network()?.link(a, b, conditions).await
    }

    /// See [`Network::links`].
    pub async fn links(&self, conditions: Conditions) -> Result<(), PlaceError> {
        self.network()?.links(conditions).await
    }

    /// See [`Network::tallies`].
    pub async fn tallies(&self) -> Result<Tallies, PlaceError> {
        self.network()?.tallies().await
    }

    /// See [`Network::flip_address`]. The node should have been told with [`Self::will_move`].
    pub async fn flip_address(&self, node: usize) -> Result<Move, PlaceError> {
        self.network()?.flip_address(node).await
    }

    /// Fills the disk of a node; the bytes that took. See [`SmallDisk::fill`].
    pub fn fill_disk(&self, node: usize) -> Result<u64, PlaceError> {
        self.disk(node)?.fill().map_err(|error| failed("fill the disk", node, &error))
    }

    /// Gives a node the room back that [`Self::fill_disk`] took.
    pub fn free_disk(&self, node: usize) -> Result<(), PlaceError> {
        self.disk(node)?.free().map_err(|error| failed("free the disk", node, &error))
    }

    /// Sets the wall clock of a node off by so many seconds. Noticed within [`clock::NOTICED_WITHIN_S`].
    pub fn set_clock(&self, node: usize, offset_s: i64) -> Result<(), PlaceError> {
        let clock = self.clocks.get(&node);
        let clock = clock.ok_or_else(|| PlaceError::Wrong(format!("node {node} has the machine's clock")))?;
        clock.set(offset_s).map_err(|error| failed("set the clock", node, &error))
    }

    /// Makes the collector of the nodes behave so. See [`Collector::be`].
    pub fn set_collector(&self, mood: Mood) -> Result<(), PlaceError> {
        self.collector().map(|collector| collector.be(mood))
    }

    /// Requests that the collector has taken.
    pub fn taken_by_collector(&self) -> Result<u64, PlaceError> {
        self.collector().map(Collector::taken)
    }

    /// The network between the nodes, for what has no word here.
    pub fn network(&self) -> Result<&Network, PlaceError> {
        match &self.net {
            Net::Loopback => Err(no_network()),
            Net::Namespaces(network) => Ok(network),
        }
    }

    fn disk(&self, node: usize) -> Result<&SmallDisk, PlaceError> {
        self.disks.get(&node).ok_or_else(|| PlaceError::Wrong(format!("node {node} has no disk of its own")))
    }

    fn collector(&self) -> Result<&Collector, PlaceError> {
        self.collector.as_ref().ok_or_else(|| PlaceError::Wrong("the nodes have no collector".into()))
    }
}

fn no_network() -> PlaceError {
    PlaceError::Wrong("on 127.0.0.1 there is no network between the nodes; --net netns makes one".into())
}

fn failed(what: &str, node: usize, error: &io::Error) -> PlaceError {
    PlaceError::Failed { command: format!("{what} of node {node}"), words: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn on_loopback_nothing_is_added_and_nothing_can_be_cut() {
        let place = Place::loopback();
        let command = place.command(3, Path::new("perennial")).unwrap();
        assert_eq!(command.as_std().get_program(), "perennial");
        assert_eq!(command.as_std().get_args().count() + place.arguments(3).len(), 0);
        assert_eq!(place.reached_at(3, "id@127.0.0.1:9"), "id@127.0.0.1:9");
        let error = place.partition(&[vec![0], vec![1]]).await.unwrap_err();
        assert!(error.to_string().contains("--net netns"), "{error}");
        assert!(!error.is_lack());
    }

    #[test]
    fn who_has_no_disk_and_no_clock_is_told() {
        let place = Place::loopback();
        assert_eq!(place.fill_disk(1).unwrap_err().to_string(), "node 1 has no disk of its own");
        assert_eq!(place.set_clock(1, 3600).unwrap_err().to_string(), "node 1 has the machine's clock");
        assert_eq!(place.set_collector(Mood::Silent).unwrap_err().to_string(), "the nodes have no collector");
    }
}
