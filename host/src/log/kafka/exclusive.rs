//! Writes that hang on what was read before: a transactional producer for each try, of which the brokers let the newest of a name alone write.

use super::config::PATIENCE;
use super::producer::Producer;
use super::{errors, native, transaction};
use crate::io::{LogError, Remedy, TopicPartition};
use crate::log::exclusive::Tried;
use crate::record::Records;
use rdkafka::ClientConfig;

/// One try. What others of this name wrote before it is there for `decide` to read, and what they write after it is refused, or else this is.
pub fn attempt(
    config: &ClientConfig,
    to: &TopicPartition,
    decide: &mut dyn FnMut() -> Result<Option<Records>, LogError>,
) -> Result<Tried, LogError> {
    let mut producer = Producer::new(config)?;
    if let Err(error) = transaction::init(producer.client()) {
        return if error.remedy == Remedy::Fenced { Ok(Tried::Again(error.message)) } else { Err(error) };
    }
    let Some(records) = decide()?.filter(|records| !records.is_empty()) else { return Ok(Tried::Done) };
    let Err(error) = write(&mut producer, to, &records) else { return Ok(Tried::Done) };
    // An open transaction would hold back the readers until the next try, or until it is too old.
    if error.remedy != Remedy::Fenced && native::fatal(producer.client()).is_none() {
        let aborted = native::abort_transaction(producer.client(), PATIENCE);
        if let Err(failure) = aborted {
            tracing::debug!("aborting a transaction: {}", failure.text);
        }
    }
    match error.remedy {
        Remedy::Isolate | Remedy::Stop => Err(error),
        Remedy::Fenced | Remedy::Rewind | Remedy::Indefinite | Remedy::Wait => Ok(Tried::Again(error.message)),
    }
}

fn write(producer: &mut Producer, to: &TopicPartition, records: &Records) -> Result<(), LogError> {
    native::begin_transaction(producer.client()).map_err(|failure| errors::transaction_failed("beginning a transaction", &failure))?;
    producer.append(&to.topic, records, |_| to.partition)?;
    transaction::commit_records(producer.client())
}
