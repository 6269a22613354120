//! The story this project began with, told by a real node: killed and respawned peers, telemetry on and its collector
//! silent, and at the end where the heap of the one that watched is.
//!
//! The program is the node's own, built so that `PERENNIAL_DHAT` starts a profile and the route `trim` ends it; nothing of
//! it is linked here.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, UnixStream},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    args::Story,
    buckets::{Buckets, Rules},
    runner, table,
};

/// A node says that it is ready within this long; one that is profiled takes longer than any other.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Between a kill and the respawn, and between the respawn and the next kill. An idle timeout of ten seconds then has the
/// node that watches deal with several dead neighbors at a time.
const KILL_PAUSE: Duration = Duration::from_millis(600);

/// After the last kill: longer than iroh remembers a remote without a connection (60 s).
const REST: Duration = Duration::from_secs(75);

/// The profile is written within this long. Finding the symbols of some thousand stacks takes seconds of a busy machine.
const PROFILE_TIMEOUT: Duration = Duration::from_secs(180);

/// What is told of the node in the story, before and after its fixes: Luke Angel, *Hunting a connection leak the soak test
/// wouldn't explain*. Megabytes, and the buckets of ours that are meant.
const TOLD: [(&str, &str, &str, &[&str]); 4] = [
    ("total retained heap", "42.9", "8.1", &[]),
    ("tracing / otel", "29.2", "2.0", &["otel", "tracing"]),
    ("process table", "9.1", "1.6", &["sampler"]),
    ("quic connections", "18.7", "3.85", &["quic-conn", "quic-tables", "tls", "sock"]),
];

/// Runs the story and prints its table. 0 if ours ends below what the story ended with, in every row.
pub(crate) async fn tell(args: &Story) -> Result<u8> {
    let Story { node: program, kills, peers, out } = args;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    let profile = out.join("story.json");
    if profile.exists() {
        std::fs::remove_file(&profile)?;
    }
    // Takes connections and never answers.
    let collector = TcpListener::bind("127.0.0.1:0").await?;
    let otlp = format!("http://{}", collector.local_addr()?);
    let control = out.join("story.sock");
    let watches = ["--control".as_ref(), control.as_os_str(), "--otlp".as_ref(), otlp.as_ref()];
    let mut observer = Command::new(program);
    observer.args(["up", "--log", "debug"]).args(watches).env("PERENNIAL_DHAT", &profile);
    let (_observer, ticket) = start(observer).await.context("the node that watches")?;
    let mut swarm = Swarm { program: program.clone(), keys: out.join("story-keys"), ticket, peers: Vec::new() };
    swarm.gather(usize::from(*peers)).await?;
    swarm.storm(usize::from(*kills)).await?;
    sleep(REST).await;
    finish(&control, &profile).await?;
    let heap = runner::read(&profile)?;
    let rules = Rules::built_in();
    let buckets = rules.sort(&heap);
    println!("{}\n\n{}", rows(&buckets), table::buckets(&buckets, &|_| None, 1));
    let unmatched = rules.unmatched_of("story", &buckets);
    if !unmatched.is_empty() {
        bail!("no allocation of the node matches {}; was it built with telemetry?", unmatched.join(", "));
    }
    Ok(u8::from(!is_below(&buckets)))
}

/// The table of the story with a column of ours.
fn rows(buckets: &Buckets) -> String {
    let line = |(what, before, after, of): (&str, &str, &str, &[&str])| {
        format!(" {what:20} {before:>6} MB {after:>6} MB {:>9.2} MB", megabytes(buckets, of))
    };
    let head = format!(" {:20} {:>9} {:>9} {:>12}", "retained heap", "before", "after", "ours");
    [head].into_iter().chain(TOLD.into_iter().map(line)).collect::<Vec<_>>().join("\n")
}

fn is_below(buckets: &Buckets) -> bool {
    TOLD.iter().all(|(_, _, after, of)| after.parse().is_ok_and(|after: f64| megabytes(buckets, of) <= after))
}

/// Of these buckets; of all where none is named.
fn megabytes(buckets: &Buckets, of: &[&str]) -> f64 {
    let bytes = match of {
        [] => buckets.total().bytes,
        of => of.iter().map(|name| buckets.of(name).bytes).sum(),
    };
    bytes as f64 / 1e6
}

/// The peers of the node that watches.
#[derive(Debug)]
struct Swarm {
    program: PathBuf,
    keys: PathBuf,
    ticket: String,
    peers: Vec<Child>,
}

impl Swarm {
    async fn gather(&mut self, count: usize) -> Result<()> {
        std::fs::create_dir_all(&self.keys)?;
        for number in 0..count {
            let peer = self.spawn(number).await?;
            self.peers.push(peer);
        }
        Ok(())
    }

    /// Kills one peer after the other and brings it back under its key.
    async fn storm(&mut self, kills: usize) -> Result<()> {
        for number in 0..kills {
            let victim = number % self.peers.len();
            self.peers[victim].kill().await?;
            sleep(KILL_PAUSE).await;
            self.peers[victim] = self.spawn(victim).await?;
            sleep(KILL_PAUSE).await;
            if (number + 1) % 20 == 0 {
                eprintln!("{} of {kills} kills", number + 1);
            }
        }
        Ok(())
    }

    async fn spawn(&self, number: usize) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("up").arg("--key-file").arg(self.keys.join(number.to_string())).args(["--join", &self.ticket]);
        command.arg("--control").arg(self.keys.join(format!("{number}.sock")));
        Ok(start(command).await.with_context(|| format!("peer {number}"))?.0)
    }
}

/// Starts a node and waits until it is ready; it, and its ticket.
async fn start(mut command: Command) -> Result<(Child, String)> {
    command.args(["--topic", "story", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("cannot start the node; --node takes its path")?;
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let ready = timeout(READY_TIMEOUT, lines.next_line()).await.context("not ready in time")??;
    let ready: Value = serde_json::from_str(&ready.context("the node ended before it was ready")?)?;
    let ticket = ready["ticket"].as_str().context("the first line of the node has no ticket")?.to_owned();
    // Its events are not read: a node writes no more once nobody takes what it says.
    tokio::spawn(async move { while let Ok(Some(_event)) = lines.next_line().await {} });
    Ok((child, ticket))
}

/// Ends the profile, and waits until it is there.
async fn finish(control: &Path, profile: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(control).await.context("the node that watches is gone")?;
    stream
        .write_all(b"POST /v1/trim HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        .await?;
    let deadline = Instant::now() + PROFILE_TIMEOUT;
    let mut answer = Vec::new();
    // An answer takes five seconds at most and a profile may take more, so no answer is no failure.
    let _answered = timeout(PROFILE_TIMEOUT, stream.read_to_end(&mut answer)).await;
    while runner::read(profile).is_err() {
        if Instant::now() > deadline {
            std::io::stderr().write_all(&answer)?;
            bail!("no profile was written; build the node with --features soak,perennial-heap/dhat");
        }
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap;

    fn noq(bytes: u64) -> Buckets {
        let ftbl = r#"["0x1: noq::a"]"#;
        let pps = format!(r#"[{{"eb": {bytes}, "ebk": 4, "tbk": 4, "fs": [0]}}]"#);
        let json = format!(r#"{{"mode": "rust-heap", "ftbl": {ftbl}, "pps": {pps}}}"#);
        Rules::built_in().sort(&heap::parse(&json).unwrap())
    }

    #[test]
    fn ours_stands_beside_what_was_told() {
        let text = rows(&noq(2_500_000));
        assert!(text.contains("total retained heap    42.9 MB    8.1 MB      2.50 MB"), "{text}");
        assert!(text.contains("tracing / otel         29.2 MB    2.0 MB      0.00 MB"), "{text}");
        assert!(is_below(&noq(2_500_000)));
        assert!(!is_below(&noq(3_900_000)), "more than the 3.85 MB of connections");
        assert!(!is_below(&noq(8_200_000)));
    }
}
