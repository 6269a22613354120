//! What the service manager is told (`sd_notify(3)`): ready, reloading, stopping, alive. Without one all of this does nothing.

use std::{fmt, time::Duration};

use sd_notify::NotifyState;

/// The node works.
pub(crate) fn ready(status: impl fmt::Display) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status.to_string())]);
}

/// The settings are being read anew; [`ready`] ends that.
pub(crate) fn reloading() {
    // The manager must be able to tell this reload from an earlier one.
    let now = NotifyState::monotonic_usec_now().inspect_err(warn);
    let states = [NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>();
    tell(&states);
}

/// The node drains.
pub(crate) fn stopping(status: impl fmt::Display) {
    tell(&[NotifyState::Stopping, NotifyState::Status(&status.to_string())]);
}

/// What a person should see of it.
pub(crate) fn status(status: impl fmt::Display) {
    tell(&[NotifyState::Status(&status.to_string())]);
}

/// The node has proved that it works.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The manager ends the node if it does not hear [`alive`] for this long.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    // A datagram to a local socket; a manager that does not read would hold us up, and has worse troubles.
    if let Err(error) = sd_notify::notify(states) {
        warn(&error);
    }
}

fn warn(error: &std::io::Error) {
    tracing::warn!(%error, "the service manager could not be told");
}
