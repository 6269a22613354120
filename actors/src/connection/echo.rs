//! The question of a probe and its answer: a stream each way with the same few bytes. Both ends are this node.

use iroh::endpoint::Connection;

/// Bytes that are sent and must come back.
pub(crate) const NONCE_LEN: usize = 16;

/// Sends `nonce` and waits for it to come back.
pub(crate) async fn ask(connection: &Connection, nonce: [u8; NONCE_LEN]) -> Result<(), String> {
    say(connection, &nonce).await?;
    match hear(connection).await? {
        heard if heard == nonce => Ok(()),
        _ => Err("something else came back than was sent".into()),
    }
}

/// Sends back what the other end says.
pub(crate) async fn answer(connection: &Connection) -> Result<(), String> {
    let heard = hear(connection).await?;
    say(connection, &heard).await
}

async fn say(connection: &Connection, bytes: &[u8]) -> Result<(), String> {
    let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
    stream.write_all(bytes).await.map_err(|error| error.to_string())?;
    stream.finish().map_err(|error| error.to_string())
}

async fn hear(connection: &Connection) -> Result<Vec<u8>, String> {
    let mut stream = connection.accept_uni().await.map_err(|error| error.to_string())?;
    stream.read_to_end(NONCE_LEN).await.map_err(|error| error.to_string())
}
