//! What goes over the socket between the process that holds a data folder and the others.
//!
//! A frame is two lengths (4 bytes each, little-endian), JSON of the first length, bytes of the second: records in the framing of batches. The holder
//! greets with `Hello`; then the other side sends a request at a time and gets its answer.

use crate::io::{Bounds, LogError, Position, Remedy, Topic, TopicPartition};
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Read, Write};

/// Raised with every change of what follows.
pub const PROTOCOL: u32 = 2;

const MOST_JSON: usize = 16 << 20;
const MOST_BYTES: usize = (1 << 31) + (1 << 24);

#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub pid: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Topics,
    Topic(String),
    CreateTopic(String, i32),
    Bounds(Place),
    OffsetAt(Place, i64),
    Committed(String, Vec<Place>),
    DeleteTopic(String),
    DeleteGroup(String),
    MoveGroup(String, Vec<(Place, i64, String)>),
    /// With records.
    Produce(String, Option<i32>),
    /// Whose turn it is to write exclusively under this name.
    Turn(String),
    /// With records, to be appended if this turn is not over.
    AppendInTurn(String, u64, Place),
    /// Reads these from these offsets on, on this connection.
    Assign(Vec<(Place, i64)>),
    Poll {
        rows: usize,
        bytes: usize,
        wait_ms: u64,
    },
    /// Give the folder up, if no pipeline runs.
    Yield,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Topics(Vec<(String, i32)>),
    Bounds(i64, i64),
    Offset(i64),
    Committed(Vec<Option<(i64, String)>>),
    Turn(u64),
    /// To `AppendInTurn`: another wrote meanwhile; nothing was appended.
    Overtaken,
    /// With records, whose offsets follow from the first.
    Records(Place, i64),
    End(Place, i64),
    Idle,
    /// To `Yield`: the folder is free in a moment.
    Yielded,
    /// To `Yield`: pipelines run here.
    Refused,
    /// Nothing was done: the folder has been given up, ask its next holder.
    Gone,
    Failed(String, String),
}

/// A partition.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place(String, i32);

impl From<&TopicPartition> for Place {
    fn from(at: &TopicPartition) -> Self {
        Self(at.topic.to_string(), at.partition)
    }
}

impl From<Place> for TopicPartition {
    fn from(place: Place) -> Self {
        Self::new(place.0, place.1)
    }
}

impl Answer {
    pub fn failed(error: &LogError) -> Self {
        let remedy = match error.remedy {
            Remedy::Rewind => "rewind",
            Remedy::Fenced => "fenced",
            Remedy::Indefinite => "indefinite",
            Remedy::Wait => "wait",
            // No answer of the embedded log refuses a record.
            Remedy::Isolate | Remedy::Stop => "stop",
        };
        Self::Failed(remedy.to_owned(), error.message.clone())
    }

    pub fn topics(topics: &[Topic]) -> Self {
        Self::Topics(topics.iter().map(|topic| (topic.name.to_string(), topic.partitions)).collect())
    }

    pub fn bounds(bounds: Bounds) -> Self {
        Self::Bounds(bounds.begin, bounds.end)
    }

    pub fn committed(positions: Vec<Option<Position>>) -> Self {
        Self::Committed(positions.into_iter().map(|position| position.map(|position| (position.offset, position.metadata))).collect())
    }
}

pub fn failure(remedy: &str, message: String) -> LogError {
    let remedy = match remedy {
        "rewind" => Remedy::Rewind,
        "fenced" => Remedy::Fenced,
        "indefinite" => Remedy::Indefinite,
        "wait" => Remedy::Wait,
        _ => Remedy::Stop,
    };
    LogError { remedy, message }
}

pub fn send(to: &mut impl Write, message: &impl Serialize, bytes: &[u8]) -> std::io::Result<()> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MOST_JSON || bytes.len() > MOST_BYTES {
        return Err(Error::new(ErrorKind::InvalidInput, "a message is too big for the socket"));
    }
    let mut frame = Vec::with_capacity(8 + json.len());
    frame.extend_from_slice(&(json.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    frame.extend_from_slice(&json);
    to.write_all(&frame)?;
    to.write_all(bytes)
}

pub fn receive<T: for<'a> Deserialize<'a>>(from: &mut impl Read) -> std::io::Result<(T, Vec<u8>)> {
    let mut lengths = [[0; 4]; 2];
    from.read_exact(lengths.as_flattened_mut())?;
    let [json, bytes] = lengths.map(|length| u32::from_le_bytes(length) as usize);
    if json > MOST_JSON || bytes > MOST_BYTES {
        return Err(Error::new(ErrorKind::InvalidData, "a message on the socket is no message"));
    }
    let message = serde_json::from_slice(&read(from, json)?)?;
    Ok((message, read(from, bytes)?))
}

/// Reads that many bytes, without believing the number before they are there.
fn read(from: &mut impl Read, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length.min(1 << 20));
    from.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
