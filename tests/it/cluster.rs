//! A real Kafka for tests and benchmarks: one KRaft node from Maven Central, started at the first use, ended with the process. A test that disturbs its
//! brokers has a cluster of its own, `Cluster::own`.
//!
//! `MILLSTREAM_TEST_BROKERS` names running brokers instead. Without Java and Maven the tests say that they were skipped; under `CI=true`
//! that is a failure.

#[path = "maven.rs"]
pub mod maven;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Does what it is told by lines: `start`s the server or sends it a signal, and answers with a line. When its standard input ends, which it does however
/// this process ends, it ends the server and removes its folder.
const WATCHDOG: &str = r#"
folder=$1; shift
while read -r order; do
    if [ "$order" = start ]; then
        "$@" >>"$folder/server.log" 2>&1 </dev/null & server=$!
    else
        kill -s "$order" "$server"
        [ "$order" != KILL ] || wait "$server"
    fi
    echo done
done
kill -s KILL "$server"; wait "$server"; rm -rf "$folder"
"#;

/// Of the brokers' own topic in which groups' positions stand.
pub const OFFSETS_PARTITIONS: i32 = 4;

/// A running cluster.
pub struct Cluster {
    pub brokers: String,
    /// None where it is another's.
    server: Option<Server>,
}

impl Cluster {
    /// A cluster that nobody else uses, ended when this is dropped; None if there cannot be one, which was said.
    pub fn own() -> Option<Self> {
        Self::own_with("")
    }

    /// The same, with more properties of its server.
    pub fn own_with(properties: &str) -> Option<Self> {
        has_tools().then(|| start(properties))
    }

    /// Halts the broker: its connections stay, and nothing answers on them.
    pub fn halt(&mut self) {
        self.order("STOP");
    }

    /// Lets a halted broker go on.
    pub fn go_on(&mut self) {
        self.order("CONT");
    }

    /// Kills the broker, as the kernel does it where memory is short.
    pub fn kill(&mut self) {
        self.order("KILL");
    }

    /// Starts a killed broker again, with the port and the data that it had, and waits until it answers.
    pub fn restart(&mut self) {
        self.order("start");
        wait_until_ready(&self.brokers).expect("a restarted broker");
    }

    fn order(&mut self, order: &str) {
        self.server.as_mut().expect("a cluster of one's own").order(order);
    }
}

/// The watchdog of a server, with its ends for orders and answers.
struct Server {
    watchdog: Child,
    /// None once it is to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().expect("its input"), "{order}").expect("the watchdog");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the watchdog");
        assert_eq!(answer, "done\n", "{order}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.watchdog.wait();
    }
}

/// The cluster of this process; None if there cannot be one, which was said.
pub fn cluster() -> Option<&'static Cluster> {
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    CLUSTER.get_or_init(find).as_ref()
}

/// A topic's or group's name that nothing else uses.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{name}-{started:x}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What tests do to the cluster beside the program.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    config: ClientConfig,
}

impl Admin {
    pub fn new(cluster: &Cluster) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &cluster.brokers);
        Self { client: config.create().expect("a client"), config }
    }

    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let results = wait_for(self.client.create_topics([&new], &AdminOptions::new()));
        results.expect("an answer")[0].as_ref().expect("a new topic");
    }

    pub fn delete(&self, topic: &str) {
        let results = wait_for(self.client.delete_topics(&[topic], &AdminOptions::new()));
        results.expect("an answer")[0].as_ref().expect("a topic that is gone");
        let consumer: BaseConsumer = self.config.create().expect("a client");
        let deadline = Instant::now() + Duration::from_secs(30);
        let there = || consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).is_ok_and(|known| known.topics()[0].error().is_none());
        while there() {
            assert!(Instant::now() < deadline, "{topic} does not go away");
        }
    }

    /// A topic's setting, its own or the brokers'.
    pub fn setting(&self, topic: &str, key: &str) -> String {
        let described = wait_for(self.client.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()));
        let described = described.expect("an answer").remove(0).expect("the topic");
        described.get(key).and_then(|entry| entry.value.clone()).expect("the setting")
    }

    /// Commits an offset of a group as another program would.
    pub fn commit(&self, group: &str, topic: &str, partition: i32, offset: i64) {
        let consumer: BaseConsumer = self.config.clone().set("group.id", group).create().expect("a client");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        // A static member that has left stays in its group for the length of its session.
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
            assert!(Instant::now() < deadline, "{error}");
        }
    }
}

/// Waits for an admin client's future, which a thread of its own completes.
fn wait_for<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

fn find() -> Option<Cluster> {
    if let Ok(brokers) = std::env::var("MILLSTREAM_TEST_BROKERS") {
        wait_until_ready(&brokers).expect("MILLSTREAM_TEST_BROKERS");
        return Some(Cluster { brokers, server: None });
    }
    has_tools().then(|| start(""))
}

/// Whether there is what a cluster needs; if not, says it.
fn has_tools() -> bool {
    maven::there("tests on real Kafka", &["java", "mvn"], "Java 17 and Maven, or MILLSTREAM_TEST_BROKERS")
}

fn java(jars: &Path) -> Command {
    maven::java(&[jars.join("*")], "warn")
}

fn start(properties: &str) -> Cluster {
    let jars = maven::jars(maven::KAFKA, "kafka_2.13");
    let folder = tempfile::Builder::new().prefix("millstream-kafka-").tempdir().expect("a folder").keep();
    // Both are held until both are known, so that they differ.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [port, controller] = ports.map(|listener| listener.local_addr().expect("an address").port());
    let file = folder.join("server.properties");
    let data = folder.join("data");
    std::fs::write(&file, server_properties(port, controller, &data) + properties).expect("the server's properties");

    let mut id = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").expect("random bytes"), &mut id).expect("random bytes");
    // Kafka takes no id that begins with `-`.
    id[0] &= 0x7f;
    let id = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, id);
    let output = java(&jars)
        .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", &id, "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("java");
    assert!(output.status.success(), "Kafka's storage could not be made:\n{}", String::from_utf8_lossy(&output.stderr));

    let mut server = java(&jars);
    server.arg("kafka.Kafka").arg(&file);
    let mut watchdog = Command::new("sh");
    watchdog.args(["-c", WATCHDOG, "watchdog"]).arg(&folder).arg(server.get_program()).args(server.get_args());
    // A group of its own: an interrupt from the terminal must not end the watchdog before its server.
    std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
    let mut watchdog = watchdog.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a shell");
    let answers = BufReader::new(watchdog.stdout.take().expect("the watchdog's output"));
    let mut server = Server { orders: watchdog.stdin.take(), answers, watchdog };
    server.order("start");
    let brokers = format!("127.0.0.1:{port}");
    let log = folder.join("server.log");
    if let Err(error) = wait_until_ready(&brokers) {
        panic!("Kafka did not start: {error}\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    Cluster { brokers, server: Some(server) }
}

/// Sessions of the consumer group protocol are as short as those that tests ask for with the classic one; clients cannot ask for them there.
///
/// Records are kept for ever: by default those with times of long ago, as tests have them, are deleted half a minute after the start.
fn server_properties(port: u16, controller: u16, data: &Path) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={data}\n\
         auto.create.topics.enable=false\ndefault.replication.factor=1\nmin.insync.replicas=1\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions={OFFSETS_PARTITIONS}\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=500\ngroup.initial.rebalance.delay.ms=0\n\
         group.consumer.min.session.timeout.ms=1000\ngroup.consumer.session.timeout.ms=6000\n\
         group.consumer.min.heartbeat.interval.ms=100\ngroup.consumer.heartbeat.interval.ms=500\n\
         log.retention.ms=-1\n"
    )
}

fn wait_until_ready(brokers: &str) -> Result<(), String> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("reconnect.backoff.max.ms", "200")
        .create()
        .map_err(|error| error.to_string())?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = client.fetch_metadata(None, Duration::from_millis(500));
        match answer {
            Ok(metadata) if !metadata.brokers().is_empty() => return Ok(()),
            Ok(_) => {}
            Err(error) if Instant::now() > deadline => return Err(format!("{brokers}: {error}")),
            Err(_) => {}
        }
    }
}
