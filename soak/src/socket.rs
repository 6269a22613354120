//! The control socket of a node, spoken directly: one JSON request per line, one JSON answer per line. Ours and the
//! stock opponent answer alike, which `perennial`'s own verbs in `control.rs` cannot offer.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
};

/// An answer is there within this long. Guess; a loaded machine takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks once, on a connection of its own.
pub(crate) async fn ask(control: &Path, request: Value) -> Result<Value, String> {
    let name = request["request"].to_string();
    let answered = tokio::time::timeout(ANSWER_TIMEOUT, exchange(control, &request)).await;
    let line = match answered {
        Ok(line) => line.map_err(|error| format!("{name}: {error}"))?,
        Err(_) => return Err(format!("{name}: no answer within {} s", ANSWER_TIMEOUT.as_secs())),
    };
    let answer: Value = serde_json::from_str(&line).map_err(|error| format!("{name}: no JSON came back: {error}"))?;
    match answer.get("ok") {
        Some(ok) => Ok(ok.clone()),
        None => Err(format!("{name}: {}", answer["error"]["message"])),
    }
}

async fn exchange(control: &Path, request: &Value) -> std::io::Result<String> {
    let (answers, mut requests) = UnixStream::connect(control).await?.into_split();
    requests.write_all(format!("{{\"v\":1,{}\n", &request.to_string()[1..]).as_bytes()).await?;
    let line = BufReader::new(answers).lines().next_line().await?;
    line.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}
