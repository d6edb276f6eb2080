//! A reader that outlives the process that holds the folder: it keeps its places and goes on with the next holder.

use super::attached::{AttachedLog, Role, out_of_step};
use super::client::Connection;
use super::cursor::Cursors;
use super::framing;
use super::wire::{Answer, Place, Request, failure};
use crate::io::{Event, FetchLimit, Fetched, LogError, Reader, TopicPartition};
use std::time::{Duration, Instant};

/// One look holds the log open for that long at most: see `server`.
const SLICE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct AttachedReader {
    log: AttachedLog,
    places: Vec<ReadingPlace>,
    seat: Option<Seat>,
}

#[derive(Debug)]
struct ReadingPlace {
    at: TopicPartition,
    next: i64,
    /// The end that was told last.
    told: Option<i64>,
}

/// What the places are read with.
#[derive(Debug)]
enum Seat {
    /// In this process, as long as it holds the folder in this turn.
    Here(u64, Cursors),
    There(u64, Connection),
}

impl AttachedReader {
    pub fn new(log: AttachedLog) -> Self {
        Self { log, places: Vec::new(), seat: None }
    }

    /// Takes its places anew; false if the holder has just gone.
    fn sit(&mut self) -> Result<bool, LogError> {
        let (role, turn) = self.log.role()?;
        match role {
            Role::Holder(log) => {
                let mut cursors = Cursors::default();
                for place in &self.places {
                    cursors.start(&log.shared, &place.at, place.next)?;
                }
                self.seat = Some(Seat::Here(turn, cursors));
            }
            Role::Client(_) => {
                let Some(mut connection) = self.log.connect()? else {
                    self.log.lost(turn);
                    return Ok(false);
                };
                let places = self.places.iter().map(|place| (Place::from(&place.at), place.next)).collect();
                match connection.ask(&Request::Assign(places), &[]) {
                    Ok((Answer::Done, _)) => self.seat = Some(Seat::There(turn, connection)),
                    Ok((Answer::Failed(remedy, message), _)) => return Err(failure(&remedy, message)),
                    Ok(_) => return Err(out_of_step(connection.pid)),
                    Err(_) => {
                        self.log.lost(turn);
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// One look of `wait` at most; None if the holder changed.
    fn look(&mut self, limit: FetchLimit, wait: Duration) -> Result<Option<Event>, LogError> {
        match self.seat.take() {
            None => {
                self.sit()?;
                Ok(None)
            }
            Some(Seat::Here(turn, mut cursors)) => {
                let (Role::Holder(log), now) = self.log.role()? else { return Ok(None) };
                if now != turn {
                    return Ok(None);
                }
                let event = cursors.poll(&log.shared, limit, wait)?;
                self.seat = Some(Seat::Here(turn, cursors));
                Ok(Some(event))
            }
            Some(Seat::There(turn, mut connection)) => {
                let request = Request::Poll { rows: limit.rows, bytes: limit.bytes, wait_ms: wait.as_millis() as u64 };
                let Ok((answer, bytes)) = connection.ask(&request, &[]) else {
                    self.log.lost(turn);
                    return Ok(None);
                };
                let event = match answer {
                    Answer::Idle => Event::Idle,
                    Answer::End(at, offset) => Event::End { at: at.into(), offset },
                    Answer::Records(from, first) => {
                        let records =
                            framing::decode(&bytes).map_err(|error| LogError::stop(format!("from process {}: {error}", connection.pid)))?;
                        let offsets = (first..).take(records.len()).collect();
                        Event::Records(Fetched { from: from.into(), offsets, records })
                    }
                    Answer::Failed(remedy, message) => return Err(failure(&remedy, message)),
                    _ => return Err(out_of_step(connection.pid)),
                };
                self.seat = Some(Seat::There(turn, connection));
                Ok(Some(event))
            }
        }
    }

    /// Moves the places on; false for an end that was told before the holder changed.
    fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::Records(fetched) => {
                let place = self.places.iter_mut().find(|place| place.at == fetched.from);
                if let (Some(place), Some(last)) = (place, fetched.offsets.last()) {
                    place.next = last + 1;
                }
                true
            }
            Event::End { at, offset } => {
                let Some(place) = self.places.iter_mut().find(|place| place.at == *at) else { return true };
                let new = place.told != Some(*offset);
                place.told = Some(*offset);
                new
            }
            _ => true,
        }
    }
}

impl Reader for AttachedReader {
    fn assign(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.seat = None;
        self.places = partitions.iter().map(|(at, next)| ReadingPlace { at: at.clone(), next: *next, told: None }).collect();
        while !self.sit()? {}
        Ok(())
    }

    fn poll(&mut self, limit: FetchLimit, wait: Duration) -> Result<Event, LogError> {
        let deadline = Instant::now().checked_add(wait);
        loop {
            let left = deadline.map_or(SLICE, |deadline| deadline.saturating_duration_since(Instant::now()).min(SLICE));
            match self.look(limit, left)? {
                Some(Event::Idle) if left < SLICE => return Ok(Event::Idle),
                Some(Event::Idle) | None => {}
                Some(event) if self.note(&event) => return Ok(event),
                Some(_) => {}
            }
        }
    }
}
