//! A listener with a cap: full, it stops accepting, and the next client waits in the kernel's backlog, connected and not
//! served, until one leaves.
//!
//! It knows nothing of what is spoken. A client's place is a [`Slot`], which returns by `Drop`, so that a panic or an abort
//! gives it back too.

use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::Notify,
};

/// Pause after a failed accept. Descriptors have run out, and trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Something that clients connect to.
pub(crate) trait Accept: Send {
    /// One client.
    type Stream: Send;

    /// The next client. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// A listener and the clients it may have at one time.
#[derive(Debug)]
pub(crate) struct CappedListener<L> {
    listener: L,
    gauge: Gauge,
    is_failing: bool,
}

impl<L: Accept> CappedListener<L> {
    /// A listener that serves at most `max` clients at one time.
    pub(crate) fn new(listener: L, max: NonZeroUsize) -> Self {
        let shared = Shared { max: max.get(), counts: Mutex::default(), room: Notify::new() };
        Self { listener, gauge: Gauge(Arc::new(shared)), is_failing: false }
    }

    /// Its counts, to be read elsewhere.
    pub(crate) fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    /// The next client and its place. While the listener is full nobody is accepted; a failed accept is waited out, and
    /// told in the log once until one succeeds. Cancel-safe.
    pub(crate) async fn accept(&mut self) -> (L::Stream, Slot) {
        loop {
            self.gauge.has_room().await;
            match self.listener.accept().await {
                Ok(stream) => {
                    self.is_failing = false;
                    return (stream, self.gauge.take());
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(%error, "a client could not be accepted; trying on");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// What a listener counts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Gauge(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    counts: Mutex<Counts>,
    /// Told on each step from full to below full, and at no other time.
    room: Notify,
}

/// The counts of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Clients since the start.
    pub(crate) accepted: u64,
    pub(crate) in_use: usize,
    /// The most there were at one time.
    pub(crate) high_water: usize,
    /// How often it went from full to below full.
    pub(crate) resumed: u64,
    /// Whether the next client has to wait.
    pub(crate) is_at_capacity: bool,
}

impl Gauge {
    /// Clients at one time.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    /// The counts at this moment.
    pub(crate) fn read(&self) -> Counts {
        *self.lock()
    }

    async fn has_room(&self) {
        while self.lock().is_at_capacity {
            // A step that was taken before this line is kept by the `Notify`, so none is missed.
            self.0.room.notified().await;
        }
    }

    fn take(&self) -> Slot {
        let mut counts = self.lock();
        counts.accepted += 1;
        counts.in_use += 1;
        counts.high_water = counts.high_water.max(counts.in_use);
        counts.is_at_capacity = counts.in_use == self.0.max;
        Slot(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while holding it.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client's place. Dropping it gives the place back.
#[derive(Debug)]
#[must_use = "the place lasts as long as this value"]
pub(crate) struct Slot(Gauge);

impl Drop for Slot {
    fn drop(&mut self) {
        let resumes = {
            let mut counts = self.0.lock();
            counts.in_use -= 1;
            let resumes = std::mem::replace(&mut counts.is_at_capacity, false);
            counts.resumed += u64::from(resumes);
            resumes
        };
        if resumes {
            self.0.0.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
