//! What can be measured: how a swarm is made up, what it is asked to do, and who takes part.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    handshakes::{self, Dialer},
    measure::{self, Figure, Pace},
    swarm::{Shape, Subject},
};

/// One kind of measurement. Its name says everything: `latency-10-64` is ten nodes and 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// One node says something at a steady pace; how soon all others hear it, and what that costs the processor.
    Latency { nodes: usize, bytes: usize },
    /// As [`Course::Latency`], at 5000 messages a second.
    Busy { bytes: usize },
    /// Faster and faster, until something is lost or the publisher is held back.
    LossFree { bytes: usize },
    /// The same pace, spread over so many topics of four nodes.
    Topics { topics: usize },
    /// Connections, one after the other, that are made and closed: always by the same remote.
    Handshake,
    /// … by another remote each time.
    Strangers,
}

/// Messages a second where the pace is steady: as the figures for stock were taken.
const STEADY: u32 = 200;

/// Where more nodes share two cores.
const STEADY_MANY: u32 = 100;

const BUSY: u32 = 5000;

impl Course {
    /// As the issue of speed is usually put: small, middle and large messages, few and many nodes.
    pub(crate) fn all() -> Vec<Self> {
        let latency = |nodes| [64, 1024, 4000].map(|bytes| Self::Latency { nodes, bytes });
        let topics = [1, 10, 100, 1000].map(|topics| Self::Topics { topics });
        let mut all = Vec::from(latency(10));
        all.extend(latency(50));
        all.extend([64, 1024].map(|bytes| Self::Busy { bytes }));
        all.extend([64, 1024, 4000].map(|bytes| Self::LossFree { bytes }));
        all.extend(topics);
        all.extend([Self::Handshake, Self::Strangers]);
        all
    }

    /// Who is measured. The layers underneath have neither a mesh nor topics, and UDP loses what it has no room for.
    pub(crate) fn subjects(self) -> Vec<Subject> {
        match self {
            Self::Topics { .. } => vec![Subject::Ours, Subject::Stock],
            Self::Latency { .. } | Self::Busy { .. } => {
                vec![Subject::Ours, Subject::Stock, Subject::Iroh, Subject::Noq, Subject::Udp]
            }
            Self::LossFree { .. } => vec![Subject::Ours, Subject::Stock, Subject::Iroh],
            Self::Handshake | Self::Strangers => {
                vec![Subject::Ours, Subject::Stock, Subject::Iroh, Subject::Noq]
            }
        }
    }

    pub(crate) async fn measure(self, subject: Subject, seed: u64, quick: bool) -> Result<Vec<Figure>> {
        let mut nodes = 10;
        let shape = |nodes, topics| Shape { nodes, topics, seed };
        let pace = |rate, bytes| Pace { rate, bytes, time: Duration::from_secs(if quick { 2 } else { 10 }) };
        match self {
            Self::Latency { nodes, bytes } => {
                let rate = if nodes > 20 { STEADY_MANY } else { STEADY };
                measure::latency(subject, shape(nodes, 1), pace(rate, bytes)).await
            }
            Self::Busy { bytes } => measure::latency(subject, shape(nodes, 1), pace(BUSY, bytes)).await,
            Self::LossFree { bytes } => measure::loss_free(subject, shape(nodes, 1), bytes, quick).await,
            Self::Topics { topics } => {
                nodes = 4;
                measure::latency(subject, shape(nodes, topics), pace(STEADY, 64)).await
            }
            Self::Handshake => handshakes::measure(subject, Dialer::Again, if quick { 100 } else { 1000 }).await,
            Self::Strangers => handshakes::measure(subject, Dialer::Strangers, if quick { 100 } else { 1000 }).await,
        }
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency { nodes, bytes } => write!(f, "latency-{nodes}-{bytes}"),
            Self::Busy { bytes } => write!(f, "busy-{bytes}"),
            Self::LossFree { bytes } => write!(f, "loss-free-{bytes}"),
            Self::Topics { topics } => write!(f, "topics-{topics}"),
            Self::Handshake => f.write_str("handshake"),
            Self::Strangers => f.write_str("strangers"),
        }
    }
}

impl FromStr for Course {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse::<usize>().with_context(|| format!("{text:?} is no number"));
        let within = |number: usize, most: usize| match number {
            0 => bail!("0 is too few"),
            number if number > most => bail!("{number} is more than {most}"),
            number => Ok(number),
        };
        let size = |text: &str| within(number(text)?, 4000);
        if text == "handshake" {
            return Ok(Self::Handshake);
        }
        if text == "strangers" {
            return Ok(Self::Strangers);
        }
        if let Some((nodes, bytes)) = text.strip_prefix("latency-").and_then(|rest| rest.split_once('-')) {
            return Ok(Self::Latency { nodes: within(number(nodes)?, 100)?.max(2), bytes: size(bytes)? });
        }
        if let Some(bytes) = text.strip_prefix("busy-") {
            return Ok(Self::Busy { bytes: size(bytes)? });
        }
        if let Some(bytes) = text.strip_prefix("loss-free-") {
            return Ok(Self::LossFree { bytes: size(bytes)? });
        }
        if let Some(topics) = text.strip_prefix("topics-") {
            return Ok(Self::Topics { topics: within(number(topics)?, 1000)? });
        }
        bail!(
            "no such course; there are latency-NODES-BYTES, busy-BYTES, loss-free-BYTES, topics-N, handshake and strangers"
        )
    }
}
