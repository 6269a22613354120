//! Walks one course under the profiler. The profiler is dropped at the stage the course is to end at and before anything
//! is torn down: a node that has shut down shows an empty heap.

use std::{net::UdpSocket, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use iroh::{EndpointAddr, SecretKey};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    course::{Course, HOUSE, Peers, SILENT_REMOTES, Stage, TRIP_INTERVAL, TripKind},
    crowd::{Crowd, Word, message},
    node::{Census, Node},
    plant,
};

/// Everything is as a stage wants it within this long.
const STAGE_TIMEOUT: Duration = Duration::from_secs(90);

/// Between two looks at the node.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Looks in a row without a change after which a node has settled. Longer than a connection that has no purpose is kept
/// (`Limits::linger`, 4 s) when members come, as two of them may meet each other twice.
const CALM_LOOKS: u32 = 32;

/// Looks in a row at which a state must hold: acknowledgements and timers of the last packets are over.
const HELD_LOOKS: u32 = 8;

/// A dial in vain is given up after this long: in the middle of a handshake, whose first flight is repeated after a second.
const VAIN_DIAL: Duration = Duration::from_millis(100);

/// What a course found out beside the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evidence {
    /// Open when the profiler was dropped.
    pub(crate) connections: u64,
    /// Outgoing attempts the node made.
    pub(crate) dials: u64,
    /// Messages the node received.
    pub(crate) heard: usize,
}

/// Walks `course` and leaves the profile in `file`.
pub(crate) fn walk(course: Course, file: &Path) -> Result<Evidence> {
    // Before the runtime: blocks allocated earlier are invisible. Full stacks: a trimmed one may lose its owner.
    let profiler = dhat::Profiler::builder().file_name(file).trim_backtraces(None).build();
    // One thread, so that nothing runs between the last look and the file, and counts are the same in any two runs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (walker, evidence) = runtime.block_on(async {
        let mut walker = Walker::begin(course).await?;
        walker.walk().await?;
        let Census { connections, dials, .. } = walker.node.census().await?;
        let evidence = Evidence { connections, dials, heard: walker.node.heard() };
        anyhow::Ok((walker, evidence))
    })?;
    drop(profiler);
    // Nobody is owed a goodbye: the peers belong to this course, and end with it.
    drop(walker);
    runtime.shutdown_background();
    Ok(evidence)
}

#[derive(Debug)]
struct Walker {
    course: Course,
    node: Node,
    crowd: Option<Crowd>,
    /// Somebody who never answers.
    silent: UdpSocket,
}

impl Walker {
    async fn begin(course: Course) -> Result<Self> {
        let node = Node::spawn(course.subject).await?;
        let is_alone =
            course.peers == Peers::None && (course.trips.count == 0 || course.trips.kind == TripKind::HalfOpen);
        let crowd = if is_alone { None } else { Some(Crowd::start(&node.addr())?) };
        Ok(Self { course, node, crowd, silent: UdpSocket::bind("127.0.0.1:0")? })
    }

    /// Every stage up to the one the course is to end at.
    async fn walk(&mut self) -> Result<()> {
        for stage in [Stage::Fresh, Stage::Joined, Stage::Loaded, Stage::Rested, Stage::Churned, Stage::Closed] {
            match stage {
                Stage::Fresh => self.settle(0).await?,
                Stage::Joined => self.meet().await?,
                Stage::Loaded => self.talk().await?,
                Stage::Rested => self.forget().await,
                Stage::Churned => self.churn().await?,
                Stage::Closed => self.part().await?,
            }
            if stage == self.course.until {
                break;
            }
        }
        Ok(())
    }

    async fn meet(&mut self) -> Result<()> {
        match self.course.peers {
            Peers::None => Ok(()),
            Peers::Silent(count) => {
                self.tell(Word::Silent { count }).await?;
                self.settle(count as u64).await
            }
            Peers::Members(count) => {
                self.tell(Word::Members { count }).await?;
                self.settle_somewhere().await.map(drop)
            }
        }
    }

    async fn talk(&mut self) -> Result<()> {
        let load = self.course.load;
        if load.messages == 0 {
            return Ok(());
        }
        for number in 0..load.messages {
            self.node.publish(message(b'a', number)).await?;
            sleep(load.pause).await;
        }
        self.tell(Word::Publish { messages: load.messages, pause: load.pause }).await?;
        let (least, what) = (load.heard_min(), format!("{} messages are heard", load.heard_min()));
        self.until(&what, async |node| Ok((node.heard() >= least, node.heard() as u64))).await
    }

    /// What was said is kept for a time; where nothing was said there is nothing to wait for.
    async fn forget(&self) {
        if self.course.load.messages > 0 {
            sleep(self.course.rest).await;
        }
    }

    async fn churn(&mut self) -> Result<()> {
        let Course { trips, planted_bytes, rest, .. } = self.course;
        if trips.count == 0 {
            return Ok(());
        }
        let before = self.settle_somewhere().await?;
        let warm_up = trips.kind.warm_up();
        for number in 0..warm_up + trips.count {
            let next = Instant::now() + TRIP_INTERVAL;
            self.trip(trips.kind, number).await?;
            sleep_until(next).await;
            if planted_bytes > 0 && number >= warm_up {
                plant::leave_behind(planted_bytes);
            }
        }
        match trips.kind {
            TripKind::Member => self.settle_somewhere().await.map(drop)?,
            TripKind::Stranger | TripKind::Fresh | TripKind::House | TripKind::HalfOpen => {
                self.settle(before).await?;
            }
        }
        sleep(rest).await;
        Ok(())
    }

    async fn trip(&mut self, kind: TripKind, number: usize) -> Result<()> {
        match kind {
            TripKind::Stranger => self.tell(Word::Visit { fresh: false }).await,
            TripKind::Fresh => self.tell(Word::Visit { fresh: true }).await,
            TripKind::House => {
                self.tell(Word::Silent { count: HOUSE }).await?;
                self.tell(Word::Part).await
            }
            TripKind::Member => self.tell(Word::Rotate).await,
            TripKind::HalfOpen => {
                let key = SecretKey::from_bytes(&[(number % SILENT_REMOTES) as u8; 32]);
                let addr = EndpointAddr::new(key.public()).with_ip_addr(self.silent.local_addr()?);
                self.node.dial_in_vain(addr, VAIN_DIAL).await
            }
        }
    }

    async fn part(&mut self) -> Result<()> {
        if self.crowd.is_some() {
            self.tell(Word::Part).await?;
        }
        self.settle(0).await?;
        sleep(self.course.rest).await;
        Ok(())
    }

    async fn tell(&mut self, word: Word) -> Result<()> {
        self.crowd.as_mut().context("a course without peers has nobody to tell")?.tell(word).await
    }

    /// Waits until exactly so many connections are open and no task is without an owner.
    async fn settle(&self, connections: u64) -> Result<()> {
        self.until(&format!("{connections} connections are open"), async |node| {
            let now = node.census().await?;
            Ok((now.connections == connections && now.orphans == 0, now.connections))
        })
        .await
    }

    /// Waits until no connection has come or gone for a while; how many there are then.
    async fn settle_somewhere(&self) -> Result<u64> {
        let (mut last, mut calm_looks) = (self.node.census().await?.connections, 0);
        let deadline = Instant::now() + STAGE_TIMEOUT;
        while calm_looks < CALM_LOOKS {
            if Instant::now() > deadline {
                bail!("connections still come and go after {STAGE_TIMEOUT:?}, {last} at the end");
            }
            sleep(LOOK_INTERVAL).await;
            let Census { connections, orphans, .. } = self.node.census().await?;
            calm_looks = if connections == last && orphans == 0 { calm_looks + 1 } else { 0 };
            last = connections;
        }
        Ok(last)
    }

    /// Looks until `is_so` has held for a while.
    async fn until(&self, what: &str, is_so: impl AsyncFn(&Node) -> Result<(bool, u64)>) -> Result<()> {
        let deadline = Instant::now() + STAGE_TIMEOUT;
        let mut held_looks = 0;
        loop {
            let (holds, figure) = is_so(&self.node).await?;
            held_looks = if holds { held_looks + 1 } else { 0 };
            if held_looks == HELD_LOOKS {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{what}: not after {STAGE_TIMEOUT:?}, {figure} at the end");
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}
