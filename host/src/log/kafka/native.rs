//! What the crate `rdkafka` does not offer safely or cheaply enough, called on librdkafka itself. This is the only module with `unsafe`.
//!
//! - Messages are taken in batches and pushed straight into columns (65 ns a record against 225 through `BaseConsumer`), headers are read as the
//!   bytes they are (the crate panics on names that are not UTF-8), the end of a partition comes with its topic and offset.
//! - Rebalances are written down and acted on later by the worker, through `start` and `release`.
//! - Transactions are committed without the 100 ms that the crate's flush takes.
//!
//! Rules that every function here relies on: a [`Client`] owns its `rd_kafka_t` and its [`Context`], and both outlive every callback; queues, topics and
//! group metadata hold the client by `Arc`, so that they are destroyed before it; a message lives no longer than the call that hands it out.
#![allow(unsafe_code)]

use super::config::PATIENCE;
use super::context::{Context, Rebalance};
use rdkafka::bindings as rd;
use rdkafka::client::Client as CrateClient;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafkaErrorCode as Code, RDKafkaRespErr, RDKafkaType};
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

pub type Client = CrateClient<Context>;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Metadata, offsets, partitions that the caller names.
    Lookup,
    /// A member of a group: rebalances are deferred.
    Member,
    Producer,
}

/// An error of librdkafka with what it says about the transaction.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: Code,
    pub text: String,
    pub fatal: bool,
    pub retriable: bool,
    pub requires_abort: bool,
}

impl Failure {
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), fatal: false, retriable: false, requires_abort: false }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        Self::new(error.rdkafka_error_code().unwrap_or(Code::Fail), error.to_string())
    }
}

/// Whole milliseconds as librdkafka takes them. Never its "for ever" (negative).
fn millis(wait: Duration) -> c_int {
    c_int::try_from(wait.as_millis()).unwrap_or(c_int::MAX)
}

fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka hands out strings that end with a zero and live at least as long as the call that handed them out.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// Takes over an error object of librdkafka; null is success.
fn outcome(error: *mut rd::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is ours until it is destroyed here, once.
    unsafe {
        let failure = Failure {
            code: rd::rd_kafka_error_code(error).into(),
            text: text(rd::rd_kafka_error_string(error)),
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            retriable: rd::rd_kafka_error_is_retriable(error) != 0,
            requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        Err(failure)
    }
}

fn checked(code: RDKafkaRespErr) -> Result<(), Failure> {
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: a constant string for each code.
    Err(Failure::new(code.into(), text(unsafe { rd::rd_kafka_err2str(code) })))
}

/// Makes a client whose callbacks end in `context`.
pub fn client(config: &ClientConfig, kind: Kind, context: Context) -> Result<Client, KafkaError> {
    let native = config.create_native_config()?;
    // SAFETY: the configuration is not yet owned by a client. `Client::new` sets the address of the context as the opaque that each callback gets.
    unsafe {
        rd::rd_kafka_conf_set_log_cb(native.ptr(), Some(on_log));
        rd::rd_kafka_conf_set_error_cb(native.ptr(), Some(on_error));
        match kind {
            Kind::Lookup => {}
            Kind::Member => rd::rd_kafka_conf_set_rebalance_cb(native.ptr(), Some(on_rebalance)),
            Kind::Producer => rd::rd_kafka_conf_set_dr_msg_cb(native.ptr(), Some(on_delivery)),
        }
    }
    let native_kind = if kind == Kind::Producer { RDKafkaType::RD_KAFKA_PRODUCER } else { RDKafkaType::RD_KAFKA_CONSUMER };
    CrateClient::new(config, native, native_kind, context)
}

/// The context behind a callback's opaque.
///
/// # Safety
/// `opaque` is what `Client::new` set: the address of the context, which lives as long as the client.
unsafe fn context<'a>(opaque: *mut c_void) -> Option<&'a Context> {
    // SAFETY: by the contract above.
    unsafe { opaque.cast::<Context>().as_ref() }
}

unsafe extern "C" fn on_log(rk: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, message: *const c_char) {
    // SAFETY: called by librdkafka with its live client; the opaque is the context.
    if let Some(context) = unsafe { context(rd::rd_kafka_opaque(rk)) } {
        context.logged(level, &text(facility), &text(message));
    }
}

unsafe extern "C" fn on_error(_rk: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: the opaque is the context.
    if let Some(context) = unsafe { context(opaque) } {
        context.broken(code == Code::AllBrokersDown as c_int, text(reason));
    }
}

unsafe extern "C" fn on_delivery(_rk: *mut rd::rd_kafka_t, message: *const rd::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the message lives through the callback; the opaque is the context.
    unsafe {
        let (Some(context), Some(message)) = (context(opaque), message.as_ref()) else { return };
        let code: Code = message.err.into();
        // Purged: dropped by an abort, as wanted.
        if !matches!(code, Code::NoError | Code::PurgeQueue | Code::PurgeInflight) {
            context.undelivered(code, || text(rd::rd_kafka_topic_name(message.rkt)), message.partition);
        }
    }
}

unsafe extern "C" fn on_rebalance(
    rk: *mut rd::rd_kafka_t,
    code: RDKafkaRespErr,
    list: *mut rd::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: all pointers are live through the callback.
    unsafe {
        let Some(context) = context(opaque) else { return };
        let assign = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if context.closing() {
            rd::rd_kafka_assign(rk, ptr::null());
            return;
        }
        let partitions = entries(list).into_iter().map(|entry| (entry.topic, entry.partition)).collect();
        context.rebalanced(if assign {
            Rebalance::Assigned(partitions)
        } else {
            Rebalance::Revoked { partitions, lost: rd::rd_kafka_assignment_lost(rk) != 0 }
        });
        // Let the poll that serves this callback return at once.
        let queue = rd::rd_kafka_queue_get_consumer(rk);
        if !queue.is_null() {
            rd::rd_kafka_queue_yield(queue);
            rd::rd_kafka_queue_destroy(queue);
        }
    }
}

/// An entry of a list of partitions.
#[derive(Debug)]
pub struct Entry {
    pub topic: String,
    pub partition: i32,
    /// Negative: none.
    pub offset: i64,
    pub metadata: Vec<u8>,
    pub error: Option<Code>,
}

/// # Safety
/// `list` is null or a live list.
unsafe fn entries(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<Entry> {
    // SAFETY: librdkafka keeps `cnt` entries at `elems`; metadata has the length that stands beside it.
    unsafe {
        let Some(list) = list.as_ref() else { return Vec::new() };
        (0..usize::try_from(list.cnt).unwrap_or(0))
            .map(|place| {
                let entry = &*list.elems.add(place);
                let code: Code = entry.err.into();
                Entry {
                    topic: text(entry.topic),
                    partition: entry.partition,
                    offset: entry.offset,
                    metadata: bytes(entry.metadata, entry.metadata_size).unwrap_or_default().to_vec(),
                    error: (code != Code::NoError).then_some(code),
                }
            })
            .collect()
    }
}

/// The entries of a list, its metadata as the bytes they are.
pub fn list_entries(list: &TopicPartitionList) -> Vec<Entry> {
    // SAFETY: the list is live.
    unsafe { entries(list.ptr()) }
}

/// A list of partitions with offsets.
pub fn list<'a>(partitions: impl IntoIterator<Item = (&'a str, i32, Option<i64>)>) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in partitions {
        if topic.contains('\0') {
            return Err(Failure::new(Code::InvalidTopic, "a topic's name has no zero byte"));
        }
        match offset {
            Some(offset) => list.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(Failure::from)?,
            None => drop(list.add_partition(topic, partition)),
        }
    }
    Ok(list)
}

/// # Safety
/// `start` is null or points to `size` bytes that outlive `'a`.
unsafe fn bytes<'a>(start: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above. A value of no bytes may point anywhere.
    (!start.is_null()).then(|| if size == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(start.cast(), size) } })
}

/// A message of a consumer, borrowed for one call.
#[derive(Clone, Copy)]
pub struct Message<'a>(&'a rd::rd_kafka_message_t);

impl<'a> Message<'a> {
    /// None for a record.
    pub fn error(&self) -> Option<Code> {
        let code: Code = self.0.err.into();
        (code != Code::NoError).then_some(code)
    }

    pub fn error_text(&self) -> String {
        // SAFETY: the message is live.
        text(unsafe { rd::rd_kafka_message_errstr(self.0) })
    }

    /// The same for all messages of a topic, while a batch is at hand.
    pub fn topic_id(&self) -> usize {
        self.0.rkt as usize
    }

    pub fn topic(&self) -> String {
        // SAFETY: a message holds its topic; errors of no topic have a null one.
        if self.0.rkt.is_null() { String::new() } else { text(unsafe { rd::rd_kafka_topic_name(self.0.rkt) }) }
    }

    pub fn partition(&self) -> i32 {
        self.0.partition
    }

    pub fn offset(&self) -> i64 {
        self.0.offset
    }

    pub fn key(&self) -> Option<&'a [u8]> {
        // SAFETY: the message owns its key.
        unsafe { bytes(self.0.key, self.0.key_len) }
    }

    pub fn value(&self) -> Option<&'a [u8]> {
        // SAFETY: the message owns its value.
        unsafe { bytes(self.0.payload, self.0.len) }
    }

    /// Milliseconds since the epoch; -1 if the broker gave none.
    pub fn timestamp(&self) -> i64 {
        // SAFETY: the message is live; the type is not asked for.
        unsafe { rd::rd_kafka_message_timestamp(self.0, ptr::null_mut()) }
    }

    /// Hands each header to `take`. Names end at their first zero byte: librdkafka gives no length.
    pub fn headers(&self, mut take: impl FnMut(&[u8], Option<&[u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the headers belong to the message; each entry lives as long as they do.
        unsafe {
            if rd::rd_kafka_message_headers(self.0, &mut headers) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
                return;
            }
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let mut place = 0;
            while rd::rd_kafka_header_get_all(headers, place, &mut name, &mut value, &mut size)
                == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                take(CStr::from_ptr(name).to_bytes(), bytes(value, size));
                place += 1;
            }
        }
    }
}

/// A queue of messages.
pub struct Queue {
    queue: *mut rd::rd_kafka_queue_t,
    /// Held so that the queue goes before it.
    _client: Arc<Client>,
    batch: Vec<*mut rd::rd_kafka_message_t>,
}

// SAFETY: librdkafka's queues may be used from any thread; `&mut self` keeps batch calls apart, which must not overlap.
unsafe impl Send for Queue {}

impl Queue {
    /// The most messages of one batch.
    pub const BATCH: usize = 1024;

    /// A queue for partitions that are started by hand.
    pub fn new(client: Arc<Client>) -> Self {
        // SAFETY: the client is live, and held by the queue.
        let queue = unsafe { rd::rd_kafka_queue_new(client.native_ptr()) };
        Self { queue, _client: client, batch: Vec::with_capacity(Self::BATCH) }
    }

    /// The queue of a group's member; errors, logs and rebalances come through it too.
    pub fn of_member(client: Arc<Client>) -> Result<Self, Failure> {
        // SAFETY: the client is live, and held by the queue.
        unsafe {
            checked(rd::rd_kafka_poll_set_consumer(client.native_ptr()))?;
            let queue = rd::rd_kafka_queue_get_consumer(client.native_ptr());
            if queue.is_null() {
                return Err(Failure::new(Code::UnknownGroup, "the client has no group"));
            }
            Ok(Self { queue, _client: client, batch: Vec::with_capacity(Self::BATCH) })
        }
    }

    /// Hands up to `most` messages that wait already to `take`; if there is none, waits for the first. Returns how many came.
    pub fn take(&mut self, most: usize, wait: Duration, mut take: impl FnMut(Message<'_>)) -> usize {
        let most = most.clamp(1, Self::BATCH);
        let mut came = self.batch(most, Duration::ZERO, &mut take);
        if came == 0 && !wait.is_zero() {
            // A batch call waits until it is full: ask for one, then for what came with it.
            came = self.batch(1, wait, &mut take);
            if came > 0 && most > 1 {
                came += self.batch(most - 1, Duration::ZERO, &mut take);
            }
        }
        came
    }

    fn batch(&mut self, most: usize, wait: Duration, take: &mut impl FnMut(Message<'_>)) -> usize {
        let most = most.min(self.batch.capacity());
        // SAFETY: `batch` has room for `most` pointers, of which the first `count` are set; each message is destroyed once, after its use.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.queue, millis(wait), self.batch.as_mut_ptr(), most);
            let count = usize::try_from(count).unwrap_or(0);
            self.batch.set_len(count);
            for message in &self.batch {
                if let Some(message) = message.as_ref() {
                    take(Message(message));
                }
                rd::rd_kafka_message_destroy(*message);
            }
            self.batch.clear();
            count
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours; the client is still held.
        unsafe { rd::rd_kafka_queue_destroy(self.queue) }
    }
}

/// A topic's handle: spares a look-up by name for each record.
pub struct TopicHandle {
    topic: *mut rd::rd_kafka_topic_t,
    client: Arc<Client>,
}

// SAFETY: librdkafka's topics are counted references that any thread may use.
unsafe impl Send for TopicHandle {}

impl TopicHandle {
    pub fn new(client: Arc<Client>, name: &str) -> Result<Self, Failure> {
        let name = CString::new(name).map_err(|_| Failure::new(Code::InvalidTopic, "a topic's name has no zero byte"))?;
        // SAFETY: the client is live; without a configuration of its own the topic takes the client's.
        let topic = unsafe { rd::rd_kafka_topic_new(client.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            // SAFETY: librdkafka's last error of this thread.
            let code = unsafe { rd::rd_kafka_last_error() };
            checked(code)?;
            return Err(Failure::new(Code::InvalidTopic, "the topic cannot be used"));
        }
        Ok(Self { topic, client })
    }

    /// Starts to fetch a partition into `queue`. The offset is absolute: a logical one would cost a pause of half a second.
    pub fn fetch(&self, partition: i32, offset: i64, queue: &Queue) -> Result<(), Failure> {
        // SAFETY: topic and queue are live and of the same client.
        let outcome = unsafe { rd::rd_kafka_consume_start_queue(self.topic, partition, offset, queue.queue) };
        if outcome == 0 {
            return Ok(());
        }
        // SAFETY: librdkafka's last error of this thread.
        checked(unsafe { rd::rd_kafka_last_error() })
    }

    pub fn stop(&self, partition: i32) -> Result<(), Failure> {
        // SAFETY: the topic is live.
        if unsafe { rd::rd_kafka_consume_stop(self.topic, partition) } == 0 {
            return Ok(());
        }
        // SAFETY: librdkafka's last error of this thread.
        checked(unsafe { rd::rd_kafka_last_error() })
    }

    /// Hands a record to the producer's queue. `QueueFull` is back-pressure: serve the client, then try again.
    pub fn produce<'a>(
        &self,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp: i64,
        headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Result<(), Failure> {
        use rd::rd_kafka_vtype_t as Kind;
        let argument = |vtype, u| rd::rd_kafka_vu_t { vtype, u };
        let memory = |cell: Option<&[u8]>| rd::rd_kafka_vu_s__bindgen_ty_1 {
            mem: rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: cell.map_or(ptr::null_mut(), |bytes| bytes.as_ptr() as *mut c_void),
                size: cell.map_or(0, <[u8]>::len),
            },
        };
        // SAFETY: key and value are copied before the call returns (MSG_F_COPY); the headers are librdkafka's on success and ours on failure.
        unsafe {
            let native_headers = if headers.len() == 0 { ptr::null_mut() } else { rd::rd_kafka_headers_new(headers.len()) };
            if !native_headers.is_null() {
                for (name, value) in headers {
                    let (start, size) = value.map_or((ptr::null(), 0), |value| (value.as_ptr().cast::<c_void>(), value.len() as isize));
                    rd::rd_kafka_header_add(native_headers, name.as_ptr().cast(), name.len() as isize, start, size);
                }
            }
            let arguments = [
                argument(Kind::RD_KAFKA_VTYPE_RKT, rd::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.topic }),
                argument(Kind::RD_KAFKA_VTYPE_PARTITION, rd::rd_kafka_vu_s__bindgen_ty_1 { i32_: partition }),
                argument(Kind::RD_KAFKA_VTYPE_MSGFLAGS, rd::rd_kafka_vu_s__bindgen_ty_1 { i: rd::RD_KAFKA_MSG_F_COPY }),
                argument(Kind::RD_KAFKA_VTYPE_KEY, memory(key)),
                argument(Kind::RD_KAFKA_VTYPE_VALUE, memory(value)),
                argument(Kind::RD_KAFKA_VTYPE_TIMESTAMP, rd::rd_kafka_vu_s__bindgen_ty_1 { i64_: timestamp }),
                argument(Kind::RD_KAFKA_VTYPE_HEADERS, rd::rd_kafka_vu_s__bindgen_ty_1 { headers: native_headers }),
            ];
            let count = if native_headers.is_null() { arguments.len() - 1 } else { arguments.len() };
            let outcome = outcome(rd::rd_kafka_produceva(self.client.native_ptr(), arguments.as_ptr(), count));
            if outcome.is_err() && !native_headers.is_null() {
                rd::rd_kafka_headers_destroy(native_headers);
            }
            outcome
        }
    }
}

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: ours; the client is still held.
        unsafe { rd::rd_kafka_topic_destroy(self.topic) }
    }
}

/// Who a member is at this moment; a commit carries it, so that a member of an older generation is refused.
pub struct GroupMetadata(*mut rd::rd_kafka_consumer_group_metadata_t);

// SAFETY: a plain value that is only read.
unsafe impl Send for GroupMetadata {}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.0) }
    }
}

/// Serves callbacks of a client whose main queue is its own: errors, logs, delivery reports.
pub fn serve(client: &Client, wait: Duration) {
    // SAFETY: the client is live.
    unsafe { rd::rd_kafka_poll(client.native_ptr(), millis(wait)) };
}

/// Whether any broker answers.
pub fn ping(client: &Client, wait: Duration) -> Result<(), Failure> {
    let mut metadata = ptr::null();
    // SAFETY: the client is live; the metadata is destroyed once, if it was given.
    unsafe {
        let code = rd::rd_kafka_metadata(client.native_ptr(), 0, ptr::null_mut(), &mut metadata, millis(wait));
        if !metadata.is_null() {
            rd::rd_kafka_metadata_destroy(metadata);
        }
        checked(code)
    }
}

pub fn subscribe(client: &Client, topics: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: both are live; the list is copied.
    checked(unsafe { rd::rd_kafka_subscribe(client.native_ptr(), topics.ptr()) })
}

/// Returns when the client has stopped whatever it was told to stop. To be called before any partition is taken from it, with one that will be: told to
/// stop a partition that is about to stop already, it ends the process (librdkafka #5573; seen in 2.12.1). Its thread does one thing after the other, so an
/// answer comes behind what was asked before. This question, a seek to where the group stands, is always refused; it drops what waits of its partition.
fn settle(client: &Client, taken: Option<Entry>) -> Result<(), Failure> {
    let Some(Entry { topic, partition, .. }) = taken else { return Ok(()) };
    let mut question = TopicPartitionList::new();
    question.add_partition_offset(&topic, partition, Offset::Stored).map_err(Failure::from)?;
    seek(client, &question, PATIENCE)
}

/// One of the partitions that a member fetches.
fn any_assigned(client: &Client) -> Result<Option<Entry>, Failure> {
    let mut all = ptr::null_mut();
    // SAFETY: the client is live; the list is destroyed once, if it was given.
    unsafe {
        checked(rd::rd_kafka_assignment(client.native_ptr(), &mut all))?;
        let any = entries(all).into_iter().next();
        rd::rd_kafka_topic_partition_list_destroy(all);
        Ok(any)
    }
}

/// Sets what a member fetches; None is nothing, and confirms a revocation.
pub fn assign(client: &Client, partitions: Option<&TopicPartitionList>) -> Result<(), Failure> {
    settle(client, any_assigned(client)?)?;
    // SAFETY: both are live; the list is copied.
    checked(unsafe { rd::rd_kafka_assign(client.native_ptr(), partitions.map_or(ptr::null(), |list| list.ptr().cast_const())) })
}

/// Adds to what a member fetches; confirms an assignment of the brokers' (KIP-848).
pub fn incremental_assign(client: &Client, partitions: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: both are live; the list is copied.
    outcome(unsafe { rd::rd_kafka_incremental_assign(client.native_ptr(), partitions.ptr()) })
}

/// Takes from what a member fetches; confirms a revocation of the brokers' (KIP-848), whichever it is.
pub fn incremental_unassign(client: &Client, partitions: &TopicPartitionList) -> Result<(), Failure> {
    settle(client, list_entries(partitions).into_iter().next())?;
    // SAFETY: both are live; the list is copied.
    outcome(unsafe { rd::rd_kafka_incremental_unassign(client.native_ptr(), partitions.ptr()) })
}

pub fn pause(client: &Client, partitions: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: both are live.
    checked(unsafe { rd::rd_kafka_pause_partitions(client.native_ptr(), partitions.ptr()) })
}

pub fn resume(client: &Client, partitions: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: both are live.
    checked(unsafe { rd::rd_kafka_resume_partitions(client.native_ptr(), partitions.ptr()) })
}

/// Moves partitions that are being fetched; an error of a partition is in its entry.
pub fn seek(client: &Client, partitions: &TopicPartitionList, wait: Duration) -> Result<(), Failure> {
    // SAFETY: both are live.
    outcome(unsafe { rd::rd_kafka_seek_partitions(client.native_ptr(), partitions.ptr(), millis(wait)) })
}

/// Fills in where the client's group stands.
pub fn committed(client: &Client, partitions: &TopicPartitionList, wait: Duration) -> Result<(), Failure> {
    // SAFETY: both are live.
    checked(unsafe { rd::rd_kafka_committed(client.native_ptr(), partitions.ptr(), millis(wait)) })
}

/// Fills in, for each entry whose offset is a time, the first offset at or after it.
pub fn offsets_for_times(client: &Client, partitions: &TopicPartitionList, wait: Duration) -> Result<(), Failure> {
    // SAFETY: both are live.
    checked(unsafe { rd::rd_kafka_offsets_for_times(client.native_ptr(), partitions.ptr(), millis(wait)) })
}

/// The error after which a client can do nothing more, if there was one.
pub fn fatal(client: &Client) -> Option<Failure> {
    let mut buffer = [0 as c_char; 512];
    // SAFETY: the buffer has the length given, and ends with a zero after the call if there is an error.
    unsafe {
        let code = rd::rd_kafka_fatal_error(client.native_ptr(), buffer.as_mut_ptr(), buffer.len());
        (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| Failure {
            code: code.into(),
            text: text(buffer.as_ptr()),
            fatal: true,
            retriable: false,
            requires_abort: false,
        })
    }
}

pub fn group_metadata(client: &Client) -> Result<GroupMetadata, Failure> {
    // SAFETY: the client is live.
    let metadata = unsafe { rd::rd_kafka_consumer_group_metadata(client.native_ptr()) };
    if metadata.is_null() { Err(Failure::new(Code::UnknownGroup, "the client has no group")) } else { Ok(GroupMetadata(metadata)) }
}

/// Leaves the group. Rebalances that come now are confirmed at once; one that still waits must have been.
///
/// Waits for at most so long: librdkafka 2.12.1 does not answer who confirms a rebalance at the moment at which it ends, and would be waited for without end. The
/// thread that does so keeps the client then, which has left.
pub fn close_member(client: &Arc<Client>, wait: Duration) -> Result<(), Failure> {
    let (tell, told) = std::sync::mpsc::channel();
    let own = client.clone();
    let leave = move || {
        // SAFETY: the client is live, and closed once.
        let left = checked(unsafe { rd::rd_kafka_consumer_close(own.native_ptr()) });
        // Err: nobody waits any more.
        let _ = tell.send(left);
    };
    let started = std::thread::Builder::new().name("kafka-leave".to_owned()).spawn(leave);
    started.map_err(|error| Failure::new(Code::Fail, format!("no thread for it: {error}")))?;
    told.recv_timeout(wait).unwrap_or_else(|_| {
        tracing::info!("leaving a group was not answered within {wait:?}: it goes on without");
        Ok(())
    })
}

/// Waits until all that was produced is acknowledged, or has failed.
pub fn flush(client: &Client, wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client is live.
    checked(unsafe { rd::rd_kafka_flush(client.native_ptr(), millis(wait)) })
}

pub fn init_transactions(client: &Client, wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client is live.
    outcome(unsafe { rd::rd_kafka_init_transactions(client.native_ptr(), millis(wait)) })
}

pub fn begin_transaction(client: &Client) -> Result<(), Failure> {
    // SAFETY: the client is live.
    outcome(unsafe { rd::rd_kafka_begin_transaction(client.native_ptr()) })
}

pub fn send_offsets(client: &Client, offsets: &TopicPartitionList, group: &GroupMetadata, wait: Duration) -> Result<(), Failure> {
    // SAFETY: all are live; list and metadata are copied.
    outcome(unsafe { rd::rd_kafka_send_offsets_to_transaction(client.native_ptr(), offsets.ptr(), group.0, millis(wait)) })
}

/// Flushes, serving delivery reports, and commits. Blocks.
pub fn commit_transaction(client: &Client, wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client is live.
    outcome(unsafe { rd::rd_kafka_commit_transaction(client.native_ptr(), millis(wait)) })
}

/// Commits offsets of a member outside of any transaction. Blocks.
pub fn commit_offsets(client: &Client, offsets: &TopicPartitionList) -> Result<(), Failure> {
    // SAFETY: both are live; 0 = wait for the answer.
    checked(unsafe { rd::rd_kafka_commit(client.native_ptr(), offsets.ptr(), 0) })
}

/// Drops what waits to be sent, and forgets what is on its way.
pub fn purge(client: &Client) -> Result<(), Failure> {
    // SAFETY: the client is live.
    checked(unsafe { rd::rd_kafka_purge(client.native_ptr(), (rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT) as c_int) })
}

/// Drops what waits to be sent, and aborts. Blocks.
pub fn abort_transaction(client: &Client, wait: Duration) -> Result<(), Failure> {
    // SAFETY: the client is live.
    outcome(unsafe { rd::rd_kafka_abort_transaction(client.native_ptr(), millis(wait)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topics hold what others wrote, with any codec.
    #[test]
    fn all_codecs_are_built_in() {
        let features = ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features")).expect("features");
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            assert!(features.split(',').any(|feature| feature.trim_matches(['\0', ' ']) == codec), "{codec} in {features}");
        }
    }
}
