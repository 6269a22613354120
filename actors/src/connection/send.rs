//! The send half: one outbox in, one stream per topic out, and the retire sequence at the end.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use iroh::endpoint::{Connection, SendStream};
use iroh_gossip::proto::TopicId;
use n0_future::{
    FuturesUnordered, StreamExt,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{ConnectionEnd, UnknownTopics};
use crate::{
    lease::{Outbox, Outgoing},
    limits::Limits,
    lives::Phase,
    wire,
};

/// Items taken from the outbox before writing. Enough to fill a few packets, few enough to stay fair.
const BATCH_MAX: usize = 64;

/// The longest a remote that is to be closed on is given for a goodbye: its slot is wanted by somebody.
pub(crate) const PARTING_MAX: Duration = Duration::from_secs(1);

pub(super) struct SendHalf<'a> {
    connection: &'a Connection,
    outbox: Outbox,
    limits: &'a Limits,
    unknown_topics: &'a UnknownTopics,
    streams: HashMap<TopicId, SendStream>,
    /// Finished streams whose last bytes may not have been acknowledged. At most one per topic.
    finishing: HashMap<TopicId, SendStream>,
    /// Frames for one topic that are written in one go. Empty between batches; only its room is kept.
    run: Vec<Bytes>,
}

impl<'a> SendHalf<'a> {
    pub(super) fn new(
        connection: &'a Connection,
        outbox: Outbox,
        limits: &'a Limits,
        unknown_topics: &'a UnknownTopics,
    ) -> Self {
        Self {
            connection,
            outbox,
            limits,
            unknown_topics,
            streams: HashMap::new(),
            finishing: HashMap::new(),
            run: Vec::new(),
        }
    }

    /// Ends when the last lease is gone, or when it is told to part.
    pub(super) async fn run(&mut self, parting: &CancellationToken) -> ConnectionEnd {
        loop {
            let first = tokio::select! {
                biased; // An order is not kept waiting by a full outbox.
                _ = parting.cancelled() => return self.part().await,
                first = self.outbox.next() => match first {
                    Some(first) => first,
                    // Everything queued has been written.
                    None => return self.retire().await,
                },
            };
            // A remote that does not take one batch in this time is slow, whatever its queue looks like.
            match timeout(self.limits.slow_peer_timeout, self.write_batch(first)).await {
                Ok(Ok(())) => {}
                Ok(Err(lost)) => return lost,
                Err(_elapsed) => return ConnectionEnd::SlowPeer,
            }
        }
    }

    /// Writes what is waiting, up to a batch of it, runs of frames for one topic in one go.
    async fn write_batch(&mut self, first: Outgoing) -> Result<(), ConnectionEnd> {
        let mut run_topic = None;
        let mut next = Some(first);
        for taken in 1.. {
            let Some(item) = next else { break };
            self.write(item, &mut run_topic).await?;
            next = if taken < BATCH_MAX { self.outbox.next_now() } else { None };
        }
        self.write_run(&mut run_topic).await
    }

    /// Adds one item to the run, which is written first if the item is of another topic, and after it if it is the last.
    async fn write(&mut self, item: Outgoing, run_topic: &mut Option<TopicId>) -> Result<(), ConnectionEnd> {
        let (topic, frame, last) = match item {
            Outgoing::Frame { topic, frame, last } => (topic, Some(frame), last),
            Outgoing::Finish { topic } => (topic, None, true),
            Outgoing::Decline { topic } => {
                self.unknown_topics.note(topic);
                (topic, None, true)
            }
        };
        if run_topic.is_some_and(|open| open != topic) {
            self.write_run(run_topic).await?;
        }
        if let Some(frame) = frame {
            *run_topic = Some(topic);
            self.run.push(frame);
        }
        if last {
            self.write_run(run_topic).await?;
            self.finish(topic);
        }
        Ok(())
    }

    async fn write_run(&mut self, topic: &mut Option<TopicId>) -> Result<(), ConnectionEnd> {
        let Some(topic) = topic.take() else { return Ok(()) };
        let stream = match self.streams.entry(topic) {
            std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let stream = self.connection.open_uni().await.map_err(lost)?;
                // Stock reads the header inline and stands still until it is there: one write with the first frame.
                self.run.insert(0, Bytes::copy_from_slice(&wire::encode_header(topic)));
                vacant.insert(stream)
            }
        };
        stream.write_all_chunks(&mut self.run).await.map_err(lost)?;
        // What was written may still hold the buffers it was cut from.
        self.run.clear();
        Ok(())
    }

    fn finish(&mut self, topic: TopicId) {
        if let Some(mut stream) = self.streams.remove(&topic)
            && stream.finish().is_ok()
        {
            self.finishing.insert(topic, stream);
        }
    }

    /// Finish every stream, wait until the remote has it all, and give it a moment to accept what it has not looked
    /// at: stock loses streams it had not accepted when the close arrives (`net/util.rs`, 0.101.0).
    async fn retire(&mut self) -> ConnectionEnd {
        let life = self.outbox.life().clone();
        life.enter(Phase::Farewells);
        // If they cannot be said in time, the close has to do.
        let _said = timeout(self.limits.finish_timeout, self.say_farewells()).await;
        for topic in self.streams.keys().copied().collect::<Vec<_>>() {
            self.finish(topic);
        }
        let mut stopped: FuturesUnordered<_> = self.finishing.values().map(SendStream::stopped).collect();
        let all_stopped = async { while stopped.next().await.is_some() {} };
        life.enter(Phase::Acknowledgements);
        // Either way the connection closes now; what is not acknowledged after this long will not be.
        let _in_time = timeout(self.limits.finish_timeout, all_stopped).await;
        life.enter(Phase::Grace);
        sleep(self.limits.close_grace).await;
        ConnectionEnd::Retired
    }

    /// Takes leave of a stock remote that is to be closed on although it may still want something: after an empty
    /// ShuffleReply on every topic it spoke of it forgets us, and can dial again.
    async fn part(&mut self) -> ConnectionEnd {
        self.outbox.life().enter(Phase::Parting);
        let goodbye = async {
            // What it said first may still be on its way.
            sleep(self.limits.close_grace).await;
            for topic in self.streams.keys() {
                self.unknown_topics.note(*topic);
            }
            self.say_farewells().await?;
            let mut stopped: FuturesUnordered<_> = self.finishing.values().map(SendStream::stopped).collect();
            while stopped.next().await.is_some() {}
            sleep(self.limits.close_grace).await;
            Ok::<(), ConnectionEnd>(())
        };
        // Unheard or not, the close comes now.
        let _in_time = timeout(PARTING_MAX, goodbye).await;
        ConnectionEnd::Retired
    }

    async fn say_farewells(&mut self) -> Result<(), ConnectionEnd> {
        let mut run_topic = None;
        for topic in self.unknown_topics.take() {
            self.write(Outgoing::Frame { topic, frame: wire::farewell_frame(), last: true }, &mut run_topic).await?;
        }
        Ok(())
    }
}

fn lost(error: impl std::fmt::Display) -> ConnectionEnd {
    ConnectionEnd::Lost(error.to_string())
}
