//! A stock iroh-gossip node as the other side: whatever `perennial up --pipe` says, an existing application hears.

use std::{str::FromStr, time::Duration};

use iroh::{
    Endpoint, EndpointAddr, RelayMode,
    address_lookup::memory::MemoryLookup,
    endpoint::{PortmapperConfig, presets},
    protocol::Router,
};
use iroh_gossip::{
    api::{Event, GossipReceiver},
    net::Gossip,
    proto::TopicId,
};
use iroh_tickets::endpoint::EndpointTicket;
use n0_future::StreamExt;
use tokio::time::timeout;

use crate::process::{DEADLINE, Up};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_and_a_pipe_talk_when_the_stock_node_dials() {
    let dir = tempfile::tempdir().unwrap();
    let mut up = Up::json(dir.path(), &["--topic", "chat", "--pipe"]);
    let stock = Stock::spawn().await;
    let ours = EndpointTicket::from_str(&up.ticket()).unwrap().endpoint_addr().clone();
    stock.lookup.add_endpoint_info(ours.clone());
    let (sender, mut receiver) = stock.gossip.subscribe(chat(), vec![ours.id]).await.unwrap().split();
    timeout(DEADLINE, receiver.joined()).await.unwrap().unwrap();
    sender.broadcast("from stock".into()).await.unwrap();
    assert_eq!(up.message("from stock")["from"], stock.router.endpoint().id().to_string());
    up.say("from perennial");
    heard(&mut receiver, "from perennial").await;
    up.signal("TERM");
    up.wait_expecting(0);
    stock.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_node_and_a_pipe_talk_when_the_pipe_dials() {
    let dir = tempfile::tempdir().unwrap();
    let stock = Stock::spawn().await;
    let (sender, mut receiver) = stock.gossip.subscribe(chat(), Vec::new()).await.unwrap().split();
    let mut up = Up::json(dir.path(), &["--topic", "chat", "--pipe", "--join", &stock.ticket()]);
    up.say("from perennial");
    heard(&mut receiver, "from perennial").await;
    sender.broadcast("from stock".into()).await.unwrap();
    up.message("from stock");
    drop((sender, receiver));
    up.event("neighbor_down", |event| event["reason"] == "left");
    stock.shutdown().await;
}

fn chat() -> TopicId {
    TopicId::from_bytes(*blake3::hash(b"chat").as_bytes())
}

async fn heard(receiver: &mut GossipReceiver, text: &str) {
    let waiting = async {
        loop {
            match receiver.next().await {
                Some(Ok(Event::Received(message))) if message.content == text => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => panic!("stock reports {error}"),
                None => panic!("stock's topic ended"),
            }
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("stock did not hear {text:?} within {DEADLINE:?}"));
}

struct Stock {
    gossip: Gossip,
    router: Router,
    lookup: MemoryLookup,
}

impl Stock {
    async fn spawn() -> Self {
        let lookup = MemoryLookup::new();
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Disabled)
            .portmapper_config(PortmapperConfig::Disabled)
            .address_lookup(lookup.clone())
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .unwrap()
            .bind()
            .await
            .unwrap();
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let router = Router::builder(endpoint).accept(iroh_gossip::ALPN, gossip.clone()).spawn();
        Self { gossip, router, lookup }
    }

    fn ticket(&self) -> String {
        let endpoint = self.router.endpoint();
        let mut addr = EndpointAddr::new(endpoint.id());
        for socket in endpoint.bound_sockets() {
            addr = addr.with_ip_addr(socket);
        }
        EndpointTicket::new(addr).to_string()
    }

    async fn shutdown(self) {
        let _ = timeout(Duration::from_secs(10), self.router.shutdown()).await;
    }
}
