//! Which limits contradict each other, and what would be right. `[pure]`
//!
//! One sentence per contradiction, with both numbers. Nothing is ever silently shrunk: a node whose operator believes in a
//! cap that is not in force is worse off than one that does not start.

use std::time::Duration;

use super::{FRAME_MAX, Limits};

/// No count may be larger: tables and channels of this size are a typing error.
const COUNT_MAX: usize = 1_000_000;

/// No wait may be longer, so that every deadline can be computed.
const WAIT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// The smallest memory budget that makes sense: an idle node and its connections use half of it.
const MEMORY_BUDGET_MIN: u64 = 64 << 20;

/// A contradiction between limits, with what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LimitsError(String);

impl LimitsError {
    pub(crate) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

impl Limits {
    /// Checks every relation between the limits.
    ///
    /// # Errors
    ///
    /// Names the first contradiction found, with both numbers.
    pub fn validate(&self) -> Result<(), LimitsError> {
        self.check_counts()?;
        self.check_waits()?;
        self.check_slots()?;
        self.check_handshakes()?;
        self.check_rates()?;
        self.check_queues()?;
        self.check_breakers()?;
        self.check_relations_of_waits()
    }

    fn check_counts(&self) -> Result<(), LimitsError> {
        let at_least_one = [
            ("connections_max", self.connections_max),
            ("inbound_max", self.inbound_max),
            ("connections_per_peer_max", self.connections_per_peer_max),
            ("connections_per_ipv4_max", self.connections_per_ipv4_max),
            ("connections_per_ipv6_56_max", self.connections_per_ipv6_56_max),
            ("connections_per_ipv6_48_max", self.connections_per_ipv6_48_max),
            ("handshakes_max", self.handshakes_max),
            ("handshakes_per_listener_max", self.handshakes_per_listener_max),
            ("prefixes_max", self.prefixes_max),
            ("history_max", self.history_max),
            ("approvals_max", self.approvals_max),
            ("redials_max", self.redials_max),
            ("dials_max", self.dials_max),
            ("topics_max", self.topics_max),
            ("addresses_max", self.addresses_max),
            ("addresses_per_peer_max", self.addresses_per_peer_max),
            ("topic_frames_max", self.topic_frames_max),
            ("topic_commands_max", self.topic_commands_max),
            ("events_max", self.events_max),
            ("outbox_frames_max", self.outbox_frames_max),
            ("pending_frames_max", self.pending_frames_max),
            ("announced_max", self.announced_max),
            ("restarts_max", self.restarts_max),
            ("admissions_per_second", self.admissions_per_second as usize),
            ("admissions_burst", self.admissions_burst as usize),
            ("prefix_admissions_per_minute", self.prefix_admissions_per_minute as usize),
            ("prefix_admissions_burst", self.prefix_admissions_burst as usize),
            ("relay_admissions_per_minute", self.relay_admissions_per_minute as usize),
            ("relay_admissions_burst", self.relay_admissions_burst as usize),
            ("flood_per_minute", self.flood_per_minute as usize),
        ];
        for (name, value) in at_least_one {
            check(value > 0, || format!("{name} is 0; it must be at least 1"))?;
        }
        let any = [
            ("known_reserve", self.known_reserve),
            ("relay_connections_max", self.relay_connections_max),
            ("speculative_max", self.speculative_max),
            ("waiting_max", self.waiting_max),
            ("retry_above", self.retry_above),
            ("breaker_failures", self.breaker_failures as usize),
            ("pace_min", self.pace_min as usize),
        ];
        for (name, value) in at_least_one.into_iter().chain(any) {
            check(value <= COUNT_MAX, || format!("{name} of {value} exceeds {COUNT_MAX}, more than any node can use"))?;
        }
        Ok(())
    }

    fn check_waits(&self) -> Result<(), LimitsError> {
        let waits = [
            ("dial_timeout", self.dial_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("waiting_timeout", self.waiting_timeout),
            ("first_frame_timeout", self.first_frame_timeout),
            ("approval_timeout", self.approval_timeout),
            ("eviction_age_min", self.eviction_age_min),
            ("redial_min", self.redial_min),
            ("redial_max", self.redial_max),
            ("stable_after", self.stable_after),
            ("breaker_window", self.breaker_window),
            ("breaker_open_min", self.breaker_open_min),
            ("breaker_open_max", self.breaker_open_max),
            ("frame_timeout", self.frame_timeout),
            ("slow_peer_timeout", self.slow_peer_timeout),
            ("unclaimed_timeout", self.unclaimed_timeout),
            ("idle_timeout", self.idle_timeout),
            ("keep_alive", self.keep_alive),
            ("tick", self.tick),
            ("frozen_timeout", self.frozen_timeout),
            ("graft_timeout", self.graft_timeout),
            ("announce_interval", self.announce_interval),
        ];
        for (name, wait) in waits {
            check(!wait.is_zero(), || format!("{name} is 0; it must be at least 1 ms"))?;
            check(wait <= WAIT_MAX, || format!("{name} of {wait:?} exceeds 30 days"))?;
        }
        Ok(())
    }

    fn check_slots(&self) -> Result<(), LimitsError> {
        check(self.inbound_max <= self.connections_max, || {
            format!("inbound_max of {} exceeds connections_max of {}", self.inbound_max, self.connections_max)
        })?;
        check(self.known_reserve < self.inbound_max, || {
            format!(
                "known_reserve of {} leaves no slot for an unknown remote in inbound_max of {}; to admit only known ones \
                 restrict the access instead",
                self.known_reserve, self.inbound_max
            )
        })?;
        check(self.relay_connections_max <= self.inbound_max, || {
            format!(
                "relay_connections_max of {} exceeds inbound_max of {}",
                self.relay_connections_max, self.inbound_max
            )
        })?;
        check(self.connections_per_peer_max <= self.connections_max, || {
            format!(
                "connections_per_peer_max of {} exceeds connections_max of {}",
                self.connections_per_peer_max, self.connections_max
            )
        })?;
        check(self.connections_per_ipv6_56_max <= self.connections_per_ipv6_48_max, || {
            format!(
                "connections_per_ipv6_56_max of {} exceeds connections_per_ipv6_48_max of {}, and a /48 holds every /56 in it",
                self.connections_per_ipv6_56_max, self.connections_per_ipv6_48_max
            )
        })?;
        check(self.memory_budget.is_none_or(|budget| budget >= MEMORY_BUDGET_MIN), || {
            format!(
                "memory_budget of {} bytes is less than {MEMORY_BUDGET_MIN}, which a node with its connections needs",
                self.memory_budget.unwrap_or_default()
            )
        })
    }

    fn check_handshakes(&self) -> Result<(), LimitsError> {
        check(self.handshakes_per_listener_max <= self.handshakes_max, || {
            format!(
                "handshakes_per_listener_max of {} exceeds handshakes_max of {}",
                self.handshakes_per_listener_max, self.handshakes_max
            )
        })?;
        check(self.retry_above <= self.handshakes_max, || {
            format!(
                "retry_above of {} exceeds handshakes_max of {}, so no source would ever be asked to prove its address",
                self.retry_above, self.handshakes_max
            )
        })?;
        check(self.speculative_max <= self.handshakes_max, || {
            format!(
                "speculative_max of {} exceeds handshakes_max of {}; it is the smaller share, made when the node is full",
                self.speculative_max, self.handshakes_max
            )
        })?;
        check(self.waiting_timeout <= self.dial_timeout, || {
            format!(
                "waiting_timeout of {:?} exceeds dial_timeout of {:?}: whoever waits has given up before it is served",
                self.waiting_timeout, self.dial_timeout
            )
        })?;
        check(self.first_frame_timeout <= self.unclaimed_timeout, || {
            format!(
                "first_frame_timeout of {:?} exceeds unclaimed_timeout of {:?}, after which the connection is closed anyway",
                self.first_frame_timeout, self.unclaimed_timeout
            )
        })
    }

    fn check_rates(&self) -> Result<(), LimitsError> {
        check(self.admissions_burst >= self.admissions_per_second, || {
            format!(
                "admissions_burst of {} is less than admissions_per_second of {}, which could then never be reached",
                self.admissions_burst, self.admissions_per_second
            )
        })?;
        check(self.prefix_admissions_burst <= self.admissions_burst, || {
            format!(
                "prefix_admissions_burst of {} exceeds admissions_burst of {}: one prefix could use up everybody's",
                self.prefix_admissions_burst, self.admissions_burst
            )
        })?;
        check(self.relay_admissions_burst <= self.admissions_burst, || {
            format!(
                "relay_admissions_burst of {} exceeds admissions_burst of {}: one relay could use up everybody's",
                self.relay_admissions_burst, self.admissions_burst
            )
        })?;
        check(self.prefix_admissions_per_minute <= self.flood_per_minute, || {
            format!(
                "prefix_admissions_per_minute of {} exceeds flood_per_minute of {}: one prefix alone would be a flood",
                self.prefix_admissions_per_minute, self.flood_per_minute
            )
        })?;
        check(self.prefixes_max >= self.inbound_max, || {
            format!(
                "prefixes_max of {} is less than inbound_max of {}: not even those connected would be remembered",
                self.prefixes_max, self.inbound_max
            )
        })?;
        check(self.redials_max >= self.connections_max, || {
            format!(
                "redials_max of {} is less than connections_max of {}: after an outage remotes would be dialed without a pause",
                self.redials_max, self.connections_max
            )
        })?;
        check(self.redial_min <= self.redial_max, || {
            format!("redial_min of {:?} exceeds redial_max of {:?}", self.redial_min, self.redial_max)
        })?;
        check(self.rejoin_min <= self.rejoin_max, || {
            format!("rejoin_min of {:?} exceeds rejoin_max of {:?}", self.rejoin_min, self.rejoin_max)
        })
    }

    fn check_queues(&self) -> Result<(), LimitsError> {
        check(self.outbox_membership_reserve < self.outbox_frames_max, || {
            format!(
                "outbox_membership_reserve of {} leaves no payload room in outbox_frames_max of {}",
                self.outbox_membership_reserve, self.outbox_frames_max
            )
        })?;
        check(self.outbox_bytes_max >= 2 * FRAME_MAX, || {
            format!("outbox_bytes_max of {} holds less than two frames of {FRAME_MAX}", self.outbox_bytes_max)
        })?;
        check(self.message_cache_bytes_max >= 64 * FRAME_MAX, || {
            format!(
                "message_cache_bytes_max of {} holds less than 64 frames of {FRAME_MAX}, too little to answer a Graft",
                self.message_cache_bytes_max
            )
        })?;
        let asked_after = self.announce_interval + self.graft_timeout;
        check(asked_after * 4 <= self.message_retention, || {
            format!(
                "announce_interval and graft_timeout of {asked_after:?} together are more than a quarter of message_retention of \
                 {:?}: what is asked for would be gone",
                self.message_retention
            )
        })
    }

    fn check_breakers(&self) -> Result<(), LimitsError> {
        check(self.breaker_open_min <= self.breaker_open_max, || {
            format!(
                "breaker_open_min of {:?} exceeds breaker_open_max of {:?}",
                self.breaker_open_min, self.breaker_open_max
            )
        })?;
        let retry_max = self.rejoin_max + self.dial_timeout;
        check(self.breaker_failures == 0 || retry_max < self.breaker_window, || {
            format!(
                "rejoin_max and dial_timeout of {retry_max:?} together must be less than breaker_window of {:?}, or attempts \
                 that fail one by one never count as a row",
                self.breaker_window
            )
        })
    }

    fn check_relations_of_waits(&self) -> Result<(), LimitsError> {
        check(self.idle_timeout >= self.keep_alive * 2, || {
            format!("idle_timeout of {:?} is less than two keep-alives of {:?}", self.idle_timeout, self.keep_alive)
        })?;
        check(self.stable_after > self.idle_timeout, || {
            format!(
                "stable_after of {:?} must exceed idle_timeout of {:?}, or a dead connection counts as stable",
                self.stable_after, self.idle_timeout
            )
        })?;
        check(self.frozen_timeout >= self.tick * 4, || {
            format!("frozen_timeout of {:?} is less than four ticks of {:?}", self.frozen_timeout, self.tick)
        })?;
        check(self.inbox_wait < self.slow_peer_timeout, || {
            format!(
                "inbox_wait of {:?} must be less than slow_peer_timeout of {:?}, or a full topic costs the connection",
                self.inbox_wait, self.slow_peer_timeout
            )
        })?;
        // A reader that waits for its topic is alive; only then may a silent loop be called frozen.
        check(self.frozen_timeout > self.inbox_wait, || {
            format!("frozen_timeout of {:?} must exceed inbox_wait of {:?}", self.frozen_timeout, self.inbox_wait)
        })
    }
}

fn check(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), LimitsError> {
    if holds { Ok(()) } else { Err(LimitsError(sentence())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn every_impossible_combination_has_its_own_sentence() {
        type Case = (fn(&mut Limits), &'static str);
        const SECOND: Duration = Duration::from_secs(1);
        let cases: [Case; 33] = [
            (|l| l.connections_max = 0, "connections_max is 0; it must be at least 1"),
            (|l| l.topic_frames_max = usize::MAX, "topic_frames_max of 18446744073709551615 exceeds 1000000, more"),
            (|l| l.handshake_timeout = Duration::ZERO, "handshake_timeout is 0; it must be at least 1 ms"),
            (|l| l.idle_timeout = Duration::MAX, "exceeds 30 days"),
            (|l| l.connections_max = 95, "inbound_max of 96 exceeds connections_max of 95"),
            (|l| l.known_reserve = 96, "known_reserve of 96 leaves no slot for an unknown remote in inbound_max of 96"),
            (|l| l.relay_connections_max = 97, "relay_connections_max of 97 exceeds inbound_max of 96"),
            (|l| l.connections_per_peer_max = 129, "connections_per_peer_max of 129 exceeds connections_max of 128"),
            (
                |l| l.connections_per_ipv6_56_max = 65,
                "connections_per_ipv6_56_max of 65 exceeds connections_per_ipv6_48_max",
            ),
            (|l| l.memory_budget = Some(1), "memory_budget of 1 bytes is less than 67108864"),
            (|l| l.handshakes_per_listener_max = 17, "handshakes_per_listener_max of 17 exceeds handshakes_max of 16"),
            (|l| l.message_cache_bytes_max = 1, "message_cache_bytes_max of 1 holds less than 64 frames of 4096"),
            (
                |l| l.announce_interval = SECOND * 3,
                "announce_interval and graft_timeout of 3.1s together are more than a quarter",
            ),
            (|l| l.retry_above = 17, "retry_above of 17 exceeds handshakes_max of 16"),
            (|l| l.speculative_max = 17, "speculative_max of 17 exceeds handshakes_max of 16"),
            (|l| l.waiting_timeout = 11 * SECOND, "waiting_timeout of 11s exceeds dial_timeout of 10s"),
            (|l| l.first_frame_timeout = 11 * SECOND, "first_frame_timeout of 11s exceeds unclaimed_timeout of 10s"),
            (|l| l.admissions_burst = 49, "admissions_burst of 49 is less than admissions_per_second of 50"),
            (|l| l.prefix_admissions_burst = 101, "prefix_admissions_burst of 101 exceeds admissions_burst of 100"),
            (|l| l.relay_admissions_burst = 101, "relay_admissions_burst of 101 exceeds admissions_burst of 100"),
            (
                |l| l.prefix_admissions_per_minute = 301,
                "prefix_admissions_per_minute of 301 exceeds flood_per_minute of 300",
            ),
            (|l| l.prefixes_max = 95, "prefixes_max of 95 is less than inbound_max of 96"),
            (|l| l.redials_max = 127, "redials_max of 127 is less than connections_max of 128"),
            (|l| l.redial_min = 301 * SECOND, "redial_min of 301s exceeds redial_max of 300s"),
            (
                |l| l.outbox_frames_max = 64,
                "outbox_membership_reserve of 64 leaves no payload room in outbox_frames_max of 64",
            ),
            (|l| l.outbox_bytes_max = FRAME_MAX, "outbox_bytes_max of 4096 holds less than two frames of 4096"),
            (|l| l.breaker_open_min = Duration::ZERO, "breaker_open_min is 0; it must be at least 1 ms"),
            (|l| l.breaker_failures = u32::MAX, "breaker_failures of 4294967295 exceeds 1000000"),
            (|l| l.breaker_open_min = 301 * SECOND, "breaker_open_min of 301s exceeds breaker_open_max of 300s"),
            (|l| l.breaker_window = 40 * SECOND, "rejoin_max and dial_timeout of 40s together must be less than"),
            (|l| l.idle_timeout = 5 * SECOND, "idle_timeout of 5s is less than two keep-alives of 3s"),
            (|l| l.stable_after = 10 * SECOND, "stable_after of 10s must exceed idle_timeout of 10s"),
            (|l| l.frozen_timeout = SECOND, "frozen_timeout of 1s must exceed inbox_wait of 2s"),
        ];
        for (change, sentence) in cases {
            let mut limits = Limits::default();
            change(&mut limits);
            let error = limits.validate().unwrap_err().to_string();
            assert!(error.contains(sentence), "{error:?} does not say {sentence:?}");
        }
    }
}
