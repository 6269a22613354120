//! Those who listen to a topic: a bounded queue for each, and the count of what did not fit.
//!
//! A queue takes memory for what is in it, so a topic without traffic costs little. What comes while a queue is full is lost to that
//! one listener, who is told how much when it has read what came before.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    handle::Event,
    limits::Limits,
    pace::{Patience, Waiting},
};

/// The sending ends of one topic's listeners. Dropping it ends their streams, once they are read.
#[derive(Debug)]
pub(crate) struct Subscribers {
    all: Mutex<Vec<Subscriber>>,
    events_max: usize,
    pace_min: u32,
}

/// One listener's end.
#[derive(Debug)]
pub(crate) struct Subscription {
    queue: mpsc::Receiver<Event>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Subscriber {
    queue: mpsc::Sender<Event>,
    /// Lost since it was last told.
    lost: Arc<AtomicU64>,
    /// Put into its queue since the start.
    queued: usize,
    patience: Patience,
}

impl Subscribers {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { all: Mutex::default(), events_max: limits.events_max, pace_min: limits.pace_min }
    }

    /// One more, who hears everything from here on.
    pub(crate) fn subscribe(&self) -> Subscription {
        // One place for the word that something was lost.
        let (sender, receiver) = mpsc::channel(self.events_max + 1);
        let lost = Arc::new(AtomicU64::new(0));
        let (queue, patience) = (sender, Patience::new(self.pace_min));
        self.lock().push(Subscriber { queue, lost: lost.clone(), queued: 0, patience });
        Subscription { queue: receiver, lost }
    }

    /// Tells everyone. Returns whether some queue hardly has room for more, and is worth waiting for.
    pub(crate) fn send(&self, event: &Event) -> bool {
        let mut is_crowded = false;
        self.lock().retain_mut(|one| {
            let is_here = one.offer(event);
            is_crowded |= is_here && one.is_worth_waiting();
            is_here
        });
        is_crowded
    }

    /// Who is to wait, for one pause, for those whose queues hardly have room.
    pub(crate) fn wait(&self) -> Waiting {
        self.lock().iter_mut().map(Subscriber::wait).max().unwrap_or(Waiting::Nobody)
    }

    /// Events in the longest queue.
    pub(crate) fn queued(&self) -> usize {
        self.lock().iter().map(Subscriber::waiting).max().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.all.lock().expect("no holder panics")
    }
}

impl Subscriber {
    /// False if nobody listens any more.
    fn offer(&mut self, event: &Event) -> bool {
        // Once something was lost, the queue has to be half empty: a listener is told of one gap, not of one after each event.
        let places = if self.lost.load(Ordering::Relaxed) > 0 { (self.queue.max_capacity() / 2).max(2) } else { 1 };
        match self.queue.try_reserve_many(places) {
            Ok(mut places) => {
                // The listener may have found its queue empty in between, and taken them.
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0
                    && let Some(place) = places.next()
                {
                    place.send(Event::Lagged(lost));
                    self.queued += 1;
                }
                if let Some(place) = places.next() {
                    place.send(event.clone());
                    self.queued += 1;
                }
                true
            }
            Err(TrySendError::Full(())) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Closed(())) => false,
        }
    }

    fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Three quarters full: what the links of a view may still bring fits into the rest.
    fn is_crowded(&self) -> bool {
        self.waiting() > self.queue.max_capacity() / 4 * 3
    }

    fn is_worth_waiting(&mut self) -> bool {
        let taken = self.taken();
        self.holds_up() && self.patience.is_left(taken)
    }

    fn wait(&mut self) -> Waiting {
        let taken = self.taken();
        if self.holds_up() { self.patience.spend(taken) } else { Waiting::Nobody }
    }

    fn holds_up(&self) -> bool {
        self.is_crowded() && !self.queue.is_closed()
    }

    fn taken(&self) -> usize {
        self.queued.saturating_sub(self.waiting())
    }
}

impl Subscription {
    /// The next event; `None` once the topic is closed and everything waiting has been read. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        match self.queue.try_recv() {
            Ok(event) => Some(event),
            Err(_) => match self.lost.swap(0, Ordering::Relaxed) {
                0 => self.queue.recv().await,
                lost => Some(Event::Lagged(lost)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscribers(events_max: usize) -> Subscribers {
        Subscribers::new(&Limits { events_max, ..Limits::default() })
    }

    fn event(hops: u16) -> Event {
        let from = iroh::SecretKey::from_bytes(&[1; 32]).public();
        Event::Received(crate::Message { content: Default::default(), delivered_from: from, hops })
    }

    #[tokio::test]
    async fn what_did_not_fit_is_told_where_it_is_missing() {
        let subscribers = subscribers(4);
        let (mut slow, mut other) = (subscribers.subscribe(), subscribers.subscribe());
        for number in 0..10 {
            subscribers.send(&event(number));
            assert_eq!(other.next().await, Some(event(number)), "one who reads loses nothing");
        }
        for number in 0..5 {
            assert_eq!(slow.next().await, Some(event(number)));
        }
        assert_eq!(slow.queue.max_capacity(), 5, "four, and the word");
        subscribers.send(&event(10));
        assert_eq!(slow.next().await, Some(Event::Lagged(5)), "before what came later");
        assert_eq!(slow.next().await, Some(event(10)));
    }

    #[tokio::test]
    async fn one_gap_is_told_once() {
        let subscribers = subscribers(99);
        let mut slow = subscribers.subscribe();
        let (mut heard, mut gaps) = (0, 0);
        for number in 0..1000 {
            subscribers.send(&event(number));
            if number % 2 == 0 {
                match slow.next().await {
                    Some(Event::Lagged(_)) => gaps += 1,
                    Some(_) => heard += 1,
                    None => panic!("the topic is open"),
                }
            }
        }
        assert!(heard > 480 && gaps < 20, "{heard} heard, {gaps} gaps");
    }

    #[tokio::test]
    async fn a_loss_is_told_also_if_nothing_comes_after_it_and_then_the_stream_ends() {
        let subscribers = subscribers(1);
        let mut slow = subscribers.subscribe();
        for number in 0..5 {
            subscribers.send(&event(number));
        }
        drop(subscribers);
        assert_eq!(slow.next().await, Some(event(0)));
        assert_eq!(slow.next().await, Some(event(1)));
        assert_eq!(slow.next().await, Some(Event::Lagged(3)));
        assert_eq!(slow.next().await, None);
    }

    #[tokio::test]
    async fn a_crowded_listener_is_waited_for_while_it_reads_and_forgotten_when_it_is_gone() {
        let subscribers = subscribers(7);
        let mut reader = subscribers.subscribe();
        let crowded: Vec<_> = (0..8).map(|number| subscribers.send(&event(number))).collect();
        assert_eq!(crowded, [false, false, false, false, false, false, true, true]);
        for number in 0..100 {
            assert!(reader.next().await.is_some());
            subscribers.send(&event(number));
            assert!(subscribers.wait() > Waiting::Nobody, "it takes one in each pause");
        }
        let waited = (0..1000).filter(|_| subscribers.wait() > Waiting::Nobody).count();
        assert_eq!(waited, 249, "from here on it takes nothing: half a second, of which one pause was spent before");
        assert!(!subscribers.send(&event(0)), "nobody is to wait for it once more");
        drop(reader);
        assert_eq!(subscribers.wait(), Waiting::Nobody);
        assert!(!subscribers.send(&event(0)));
        assert_eq!(subscribers.queued(), 0);
    }
}
