//! A collector of telemetry on loopback that takes all it is sent over HTTP, and can be made to fail in the ways collectors do.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep,
};

/// A node gives a request up after this long. On a busy machine a second is too short for one that goes well.
const PATIENCE: Duration = Duration::from_secs(2);

/// Later than anybody waits.
const LATE: Duration = Duration::from_secs(5);

/// Spans a node keeps for its collector. Few, so that a burst fills it.
pub const QUEUE: usize = 64;

/// A batch of [`QUEUE`] spans, or every figure of a node, is a tenth of this.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Connections of all nodes at one time. Each has two at most; the kernel holds the rest.
const CONNECTIONS_MAX: usize = 128;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mood {
    /// It takes everything at once.
    Well,
    /// Nobody listens.
    Refuses,
    /// It accepts and says nothing.
    Silent,
    /// It answers when nobody waits any more.
    Late,
    /// It answers with an error.
    Fails,
}

/// A running collector. Dropping it ends it.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    mood: watch::Sender<Mood>,
    taken: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Starts one that is well, on a free port.
    ///
    /// # Errors
    /// No port of 127.0.0.1 is free.
    pub fn start() -> io::Result<Self> {
        let socket = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let addr = socket.local_addr()?;
        let (mood, moods) = watch::channel(Mood::Well);
        let taken = Arc::<AtomicU64>::default();
        let task = tokio::spawn(serve(socket, addr, moods, taken.clone()));
        Ok(Self { addr, mood, taken, task })
    }

    /// Changes how it behaves, from the next connection on; those it has are cut.
    pub fn be(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// Requests it has taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// What `up` is told of it.
    pub(super) fn arguments(&self) -> [String; 4] {
        ["--otlp".into(), format!("http://{}", self.addr), "--otlp-protocol".into(), "http/protobuf".into()]
    }

    /// What is told to the exporters of a node: seconds in place of minutes, and a short queue.
    pub(super) fn environment() -> [(&'static str, String); 4] {
        [
            ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE.to_string()),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".into()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "2000".into()),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", PATIENCE.as_millis().to_string()),
        ]
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves until it is dropped. The address is bound in every mood, so nobody else can take it meanwhile.
async fn serve(mut socket: TcpSocket, addr: SocketAddr, mut moods: watch::Receiver<Mood>, taken: Arc<AtomicU64>) {
    loop {
        let mood = *moods.borrow_and_update();
        let served = match mood {
            // Bound and not listening: the kernel refuses.
            Mood::Refuses => moods.changed().await.is_ok(),
            Mood::Well | Mood::Silent | Mood::Late | Mood::Fails => match socket.listen(1024) {
                Ok(listener) => tokio::select! {
                    () = accept(&listener, mood, &taken) => false,
                    changed = moods.changed() => changed.is_ok(),
                },
                Err(_) => false,
            },
        };
        // Whoever reads the record sees that nothing was taken any more.
        let (true, Ok(next)) = (served, bind(addr)) else { return };
        socket = next;
    }
}

/// Accepts and answers; its connections end with it.
async fn accept(listener: &TcpListener, mood: Mood, taken: &Arc<AtomicU64>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if clients.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _from)) => drop(clients.spawn(answer(stream, mood, taken.clone()))),
                Err(_) => return,
            },
            ended = clients.join_next(), if !clients.is_empty() => drop(ended),
        }
    }
}

async fn answer(stream: TcpStream, mood: Mood, taken: Arc<AtomicU64>) {
    if mood == Mood::Silent {
        return std::future::pending().await;
    }
    let service = service_fn(|request: Request<Incoming>| async {
        let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
        if mood == Mood::Late {
            sleep(LATE).await;
        }
        let mut response = Response::new(Empty::<hyper::body::Bytes>::new());
        if mood == Mood::Fails || body.is_err() {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        } else {
            taken.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<_, Infallible>(response)
    });
    // Between two requests a node has no connection to it, so that its descriptors can be counted.
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    // A node that is killed does not wait for its answer.
    let _gone = connection.await;
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections that were cut are remembered by the kernel for a minute.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    #[tokio::test]
    async fn it_fails_in_every_way_at_one_address_and_is_well_in_between() {
        let collector = Collector::start().unwrap();
        let ask = async |patience| timeout(patience, request(collector.addr)).await.map_err(|_| "no answer");
        let mut taken = 0;
        for (mood, expected) in [
            (Mood::Refuses, Ok("refused")),
            (Mood::Silent, Err("no answer")),
            (Mood::Late, Err("no answer")),
            (Mood::Fails, Ok("500")),
        ] {
            until(async || ask(PATIENCE).await == Ok("200")).await;
            taken += 1;
            collector.be(mood);
            until(async || ask(Duration::from_millis(300)).await == expected).await;
            assert_eq!(ask(Duration::from_millis(300)).await, expected, "{mood:?}");
            assert!(collector.taken() >= taken, "{mood:?}");
            collector.be(Mood::Well);
        }
    }

    async fn request(addr: SocketAddr) -> &'static str {
        let Ok(mut stream) = TcpStream::connect(addr).await else { return "refused" };
        let post = b"POST /v1/traces HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nab";
        let mut answer = String::new();
        match (stream.write_all(post).await, stream.read_to_string(&mut answer).await) {
            (Ok(()), Ok(_)) if answer.starts_with("HTTP/1.1 200 ") => "200",
            (Ok(()), Ok(_)) if answer.starts_with("HTTP/1.1 500 ") => "500",
            _ => "cut",
        }
    }

    async fn until(mut is_so: impl AsyncFnMut() -> bool) {
        for _ in 0..50 {
            if is_so().await {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the collector does not change its mood");
    }
}
