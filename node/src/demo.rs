//! `perennial demo`: a mesh of real node processes on loopback, watched while it forms, loses nodes and heals.
//!
//! It passes only if every message reached every live node and every ledger came out even. The processes are in
//! `demo/swarm.rs`, what they should have heard in `demo/deliveries.rs`, who is linked to whom in `demo/links.rs`.

mod deliveries;
mod links;
mod swarm;
mod view;

use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    cli::DemoArgs,
    client,
    control::protocol::LedgerView,
    demo::{swarm::Swarm, view::View},
    exit::{Exit, Failure},
    signals::EndSignals,
    tables,
};

/// Nodes that publish in one round, and messages each of them publishes.
const PUBLISHERS: usize = 3;
const MESSAGES_PER_PUBLISHER: usize = 4;

/// Nodes a node is told to join by way of. With a single one, its death would part those who know only it.
const CONTACTS_MAX: usize = 3;

/// A mesh forms within this long or the demo fails. Loopback takes about a second.
const FORM_TIMEOUT: Duration = Duration::from_secs(20);

/// A message is everywhere within this long or counts as lost. Plumtree's slowest repair takes about two seconds.
const DELIVER_TIMEOUT: Duration = Duration::from_secs(10);

/// All ledgers together settle within this long. Retiring a connection takes five seconds at most.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the demo. Any signal ends it, and the nodes with it.
pub(crate) async fn run(args: DemoArgs) -> Result<Exit, Failure> {
    let mut signals = EndSignals::catch()?;
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    let view = View::new();
    view.title(&format!("{} nodes, {}, seed {seed}", args.nodes, kills(args.kills)));
    let shown = tokio::select! {
        shown = Demo::start(&args, seed, &view) => shown,
        signal = signals.next() => {
            view.fail(signal.name());
            return Ok(signal.exit());
        }
    };
    match shown {
        Ok(()) => Ok(Exit::Ok),
        Err(failure) => {
            view.fail(&failure.sentence);
            Ok(failure.exit)
        }
    }
}

struct Demo<'a> {
    swarm: Swarm,
    view: &'a View,
    rng: StdRng,
    seed: u64,
    /// Messages published so far, and how often one reached a node.
    published: usize,
    delivered: usize,
}

impl<'a> Demo<'a> {
    async fn start(args: &DemoArgs, seed: u64, view: &'a View) -> Result<(), Failure> {
        let begun = Instant::now();
        let swarm = Swarm::new(usize::from(args.nodes))?;
        let rng = StdRng::seed_from_u64(seed);
        let mut demo = Demo { swarm, view, rng, seed, published: 0, delivered: 0 };
        let shown = demo.play(args).await;
        if shown.is_err() {
            demo.swarm.show_logs();
        }
        shown?;
        view.summary(&format!(
            "{} messages, {} deliveries, {}, 0 lost, 0 orphans, {:.1} s",
            demo.published,
            demo.delivered,
            kills(args.kills),
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    async fn play(&mut self, args: &DemoArgs) -> Result<(), Failure> {
        self.launch().await?;
        self.form().await?;
        self.publish(0, None).await?;
        for kill in 1..=usize::from(args.kills) {
            let victim = self.kill().await?;
            self.respawn(victim).await?;
            self.form().await?;
            self.publish(kill, Some(victim)).await?;
        }
        let ledgers = self.settle().await?;
        self.stop().await?;
        show_ledgers(&ledgers)
    }

    async fn launch(&mut self) -> Result<(), Failure> {
        let count = self.swarm.len();
        let step = self.view.step(&format!("starting {count} nodes"));
        for number in 0..count {
            step.update(&format!("{number} are up"));
            let contacts = self.contacts((0..number).collect());
            self.swarm.spawn(number, &contacts)?;
            // One after the other: the next one needs its ticket.
            self.swarm.wait_ready(&[number]).await?;
        }
        step.done(&format!("{count} node processes are up"));
        Ok(())
    }

    async fn form(&mut self) -> Result<(), Failure> {
        let step = self.view.step("forming the mesh");
        let formed = self.swarm.wait_formed(FORM_TIMEOUT, |links| step.update(&format!("{links} links"))).await?;
        step.done(&format!("the mesh holds together with {formed} links"));
        Ok(())
    }

    /// Publishes from a few nodes, `first` among them, and checks that every live node hears everything.
    async fn publish(&mut self, round: usize, first: Option<usize>) -> Result<(), Failure> {
        let count = self.swarm.len();
        let mut publishers: Vec<usize> = first.into_iter().collect();
        let others: Vec<usize> = (0..count).filter(|number| Some(*number) != first).collect();
        let missing = PUBLISHERS.min(count) - publishers.len();
        publishers.extend(others.sample(&mut self.rng, missing));
        publishers.sort_unstable();
        let total = publishers.len() * MESSAGES_PER_PUBLISHER;
        let step = self.view.step(&format!("publishing {total} messages"));
        for sequence in 1..=MESSAGES_PER_PUBLISHER {
            for publisher in &publishers {
                // The seed makes every run's messages its own: identical content is dropped as a duplicate.
                let text = format!("seed {} round {round} node {} message {sequence}", self.seed, publisher + 1);
                self.swarm.publish(*publisher, &text).await?;
            }
        }
        let heard =
            self.swarm.wait_delivered(DELIVER_TIMEOUT, |left| step.update(&format!("{left} deliveries to go"))).await?;
        self.published += total;
        self.delivered += heard;
        let from = names(&publishers);
        step.done(&format!("{total} messages from {from} reached all {count}"));
        Ok(())
    }

    async fn kill(&mut self) -> Result<usize, Failure> {
        let victim = self.rng.random_range(0..self.swarm.len());
        let step = self.view.step(&format!("killing node {}", victim + 1));
        let pid = self.swarm.kill(victim).await?;
        step.done(&format!("node {} is dead (SIGKILL to process {pid})", victim + 1));
        Ok(victim)
    }

    async fn respawn(&mut self, victim: usize) -> Result<(), Failure> {
        let step = self.view.step(&format!("bringing node {} back", victim + 1));
        let contacts = self.contacts((0..self.swarm.len()).filter(|number| *number != victim).collect());
        self.swarm.spawn(victim, &contacts)?;
        self.swarm.wait_ready(&[victim]).await?;
        step.done(&format!("node {} is back with its key, by way of {}", victim + 1, names(&contacts)));
        Ok(())
    }

    /// A few of `others`, in order.
    fn contacts(&mut self, others: Vec<usize>) -> Vec<usize> {
        let mut contacts: Vec<usize> = others.sample(&mut self.rng, CONTACTS_MAX).copied().collect();
        contacts.sort_unstable();
        contacts
    }

    async fn settle(&self) -> Result<Vec<(String, LedgerView)>, Failure> {
        let step = self.view.step("settling the ledgers");
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut ledgers = Vec::new();
        for number in 0..self.swarm.len() {
            let ledger = self.swarm.ledger(number, deadline.saturating_duration_since(Instant::now())).await?;
            ledgers.push((self.swarm.title(number), ledger));
        }
        let uneven: Vec<&(String, LedgerView)> = ledgers.iter().filter(|(_, ledger)| ledger.orphans > 0).collect();
        if !uneven.is_empty() {
            show_ledgers(&ledgers)?;
            let list: Vec<String> =
                uneven.iter().map(|(title, ledger)| format!("{title}: {} orphans", ledger.orphans)).collect();
            return Err(Failure::new(Exit::Failed, format!("ledgers that did not settle: {}", list.join(", "))));
        }
        step.done("every ledger has settled to 0 orphans");
        Ok(ledgers)
    }

    async fn stop(&mut self) -> Result<(), Failure> {
        let step = self.view.step("draining");
        self.swarm.stop().await?;
        step.done("every node has drained and ended with 0");
        Ok(())
    }
}

fn show_ledgers(ledgers: &[(String, LedgerView)]) -> Result<(), Failure> {
    for (title, ledger) in ledgers {
        client::print(&format!("\n{title}\n{}", tables::ledger(ledger)))?;
    }
    client::print("").map(|_| ())
}

fn kills(count: u8) -> String {
    if count == 1 { "1 kill".into() } else { format!("{count} kills") }
}

/// `nodes 1, 3 and 4`.
fn names(numbers: &[usize]) -> String {
    let mut names: Vec<String> = numbers.iter().map(|number| (number + 1).to_string()).collect();
    match names.pop() {
        None => "nobody".into(),
        Some(only) if names.is_empty() => format!("node {only}"),
        Some(last) => format!("nodes {} and {last}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(names(&[0]), "node 1");
        assert_eq!(names(&[0, 2]), "nodes 1 and 3");
        assert_eq!(names(&[0, 2, 3]), "nodes 1, 3 and 4");
    }
}
