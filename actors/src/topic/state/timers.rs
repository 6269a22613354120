//! The protocol's timers, and which of them can wait. `[pure]`
//!
//! One kind asks for a message (Graft) that was announced and has not come. A node that has not yet looked at everything that was
//! sent to it should not ask: the answer would be a duplicate, the duplicate would prune the very link that is late, and so, message
//! by message, a burst would take the tree apart.

use std::{collections::BTreeMap, time::Duration};

use iroh::EndpointId;
use iroh_gossip::proto::topic;
use n0_future::time::Instant;

use crate::limits::Limits;

/// So many questions are asked within [`ROUND`]; more of them would find no room on their way.
const QUESTIONS_PER_ROUND: u32 = 64;
const ROUND: Duration = Duration::from_millis(5);

type Timer = topic::Timer<EndpointId>;

/// A question waits no longer for what is here than this. With a second, ten thousand messages a second left no room for more
/// announcements (`announced_max`), measured; most of what waits has come meanwhile, but a timer does not tell which.
const QUESTION_PATIENCE: Duration = Duration::from_millis(250);

/// Timers by when they are due, in the order in which they were set.
#[derive(Debug)]
pub(super) struct Timers {
    set: u64,
    /// Those that ask for a message.
    questions: BTreeMap<(Instant, u64), Timer>,
    others: BTreeMap<(Instant, u64), Timer>,
    /// How long the protocol waits before it asks, for the first time and again. A timer does not tell its kind; one of another kind
    /// that is as long can be put off with these.
    question_times: [Duration; 2],
    /// No question before.
    ask_from: Instant,
    /// When a question was first asked in this round, and how many have been.
    round: (Instant, u32),
    /// Looks for what has expired: the first one that Plumtree ever sets.
    evict: Option<Timer>,
}

impl Timers {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            set: 0,
            questions: BTreeMap::new(),
            others: BTreeMap::new(),
            question_times: [limits.graft_timeout, limits.graft_timeout / 2],
            ask_from: now,
            round: (now, 0),
            evict: None,
        }
    }

    pub(super) fn set(&mut self, delay: Duration, timer: Timer, now: Instant) {
        let is_gossip = matches!(timer, Timer::Gossip(_));
        if is_gossip && self.evict.is_none() {
            self.evict = Some(timer.clone());
        }
        self.set += 1;
        let key = (now + delay, self.set);
        match is_gossip && self.question_times.contains(&delay) {
            true => self.questions.insert(key, timer),
            false => self.others.insert(key, timer),
        };
    }

    /// Not everything that was sent to us has been looked at; what was announced may be among it.
    pub(super) fn ask_from(&mut self, at: Instant) {
        self.ask_from = self.ask_from.max(at);
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let other = self.others.first_key_value().map(|((at, _), _)| *at);
        other.into_iter().chain(self.next_question()).min()
    }

    fn next_question(&self) -> Option<Instant> {
        let ((at, _), _) = self.questions.first_key_value()?;
        let at = (*at).max(self.ask_from.min(*at + QUESTION_PATIENCE));
        let (began, asked) = self.round;
        Some(if asked < QUESTIONS_PER_ROUND { at } else { at.max(began + ROUND) })
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        if let Some(first) = self.others.first_entry()
            && first.key().0 <= now
        {
            return Some(first.remove());
        }
        if self.next_question()? > now {
            return None;
        }
        if self.round.0 + ROUND <= now {
            self.round = (now, 0);
        }
        self.round.1 += 1;
        self.questions.pop_first().map(|(_, timer)| timer)
    }

    /// The one that looks for what has expired, once it has been set.
    pub(super) fn evict(&self) -> Option<&Timer> {
        self.evict.as_ref()
    }

    /// Messages that will be asked for.
    pub(super) fn questions(&self) -> usize {
        self.questions.len()
    }

    pub(super) fn len(&self) -> usize {
        self.questions.len() + self.others.len()
    }

    /// How many of them look for what has expired.
    #[cfg(test)]
    pub(super) fn evictions(&self) -> usize {
        self.others.values().filter(|timer| Some(*timer) == self.evict.as_ref()).count()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// What the protocol sets when somebody announces these messages.
    fn questions(timers: &mut Timers, count: u64, now: Instant) {
        let mut config = topic::Config::default();
        config.broadcast.graft_timeout_1 = Duration::ZERO;
        let mut proto = topic::State::with_rng(
            iroh::SecretKey::from_bytes(&[1; 32]).public(),
            None,
            config,
            rand::rngs::StdRng::from_seed([1; 32]),
        );
        let from = iroh::SecretKey::from_bytes(&[2; 32]).public();
        let ids: Vec<_> = (0..count).map(|id| ([&id.to_be_bytes()[..], &[0; 24]].concat(), 0u16)).collect();
        for some in ids.chunks(100) {
            let some: Vec<([u8; 32], u16)> =
                some.iter().map(|(id, round)| (id[..].try_into().unwrap(), *round)).collect();
            let ihave = crate::wire::tree::announcement(&some);
            let ihave = topic::InEvent::RecvMessage(from, postcard::from_bytes(&ihave[4..]).unwrap());
            for output in proto.handle(ihave, now) {
                // Not the one that looks for what has expired.
                if let topic::OutEvent::ScheduleTimer(Duration::ZERO, timer) = output {
                    timers.set(Limits::default().graft_timeout, timer, now);
                }
            }
        }
    }

    fn taken(timers: &mut Timers, now: Instant) -> usize {
        std::iter::from_fn(|| timers.take_due(now)).count()
    }

    #[test]
    fn questions_wait_for_what_is_here_but_not_for_ever() {
        let (start, asked_after) = (Instant::now(), Limits::default().graft_timeout);
        let mut timers = Timers::new(&Limits::default(), start);
        questions(&mut timers, 10, start);
        assert_eq!((timers.questions(), timers.next()), (10, Some(start + asked_after)));
        let mut now = start;
        while now < start + asked_after + QUESTION_PATIENCE {
            timers.ask_from(now + asked_after);
            assert_eq!(taken(&mut timers, now), 0, "after {:?}", now - start);
            now += Duration::from_millis(50);
        }
        timers.ask_from(now + asked_after);
        assert_eq!(taken(&mut timers, now), 10);
    }

    #[test]
    fn many_questions_are_asked_in_rounds_and_the_clock_says_when() {
        let start = Instant::now();
        let mut timers = Timers::new(&Limits::default(), start);
        questions(&mut timers, 200, start);
        let mut asked = Vec::new();
        while let Some(now) = timers.next() {
            asked.push((now - start, taken(&mut timers, now)));
        }
        let millis = |millis| Duration::from_millis(millis);
        assert_eq!(asked, [(millis(100), 64), (millis(105), 64), (millis(110), 64), (millis(115), 8)]);
    }
}
