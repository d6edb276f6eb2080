//! A real Kafka for tests and benchmarks: one KRaft node from Maven Central, started at the first use, ended with the process.
//!
//! `MILLSTREAM_TEST_BROKERS` names running brokers instead. Without Java and Maven the tests say that they were skipped; under `CI=true`
//! that is a failure.

#[path = "maven.rs"]
pub mod maven;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Waits for its standard input to end, which it does however this process ends; then ends the server and removes its folder.
const WATCHDOG: &str = r#"folder=$1; shift; "$@" >"$folder/server.log" 2>&1 </dev/null & server=$!; read -r _; kill -9 "$server"; wait "$server"; rm -rf "$folder""#;

/// A running cluster.
pub struct Cluster {
    pub brokers: String,
    /// The watchdog and its input; both end with this process.
    _server: Option<(Child, ChildStdin)>,
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

fn find() -> Option<Cluster> {
    if let Ok(brokers) = std::env::var("MILLSTREAM_TEST_BROKERS") {
        wait_until_ready(&brokers).expect("MILLSTREAM_TEST_BROKERS");
        return Some(Cluster { brokers, _server: None });
    }
    if !maven::there("tests on real Kafka", &["java", "mvn"], "Java 17 and Maven, or MILLSTREAM_TEST_BROKERS") {
        return None;
    }
    Some(start())
}

fn java(jars: &Path) -> Command {
    maven::java(&[jars.join("*")], "warn")
}

fn start() -> Cluster {
    let jars = maven::jars(maven::KAFKA, "kafka_2.13");
    let folder = tempfile::Builder::new().prefix("millstream-kafka-").tempdir().expect("a folder").keep();
    // Both are held until both are known, so that they differ.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let [port, controller] = ports.map(|listener| listener.local_addr().expect("an address").port());
    let properties = folder.join("server.properties");
    let data = folder.join("data");
    std::fs::write(&properties, server_properties(port, controller, &data)).expect("the server's properties");

    let mut id = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").expect("random bytes"), &mut id).expect("random bytes");
    // Kafka takes no id that begins with `-`.
    id[0] &= 0x7f;
    let id = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, id);
    let output = java(&jars)
        .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", &id, "-c"])
        .arg(&properties)
        .stdin(Stdio::null())
        .output()
        .expect("java");
    assert!(output.status.success(), "Kafka's storage could not be made:\n{}", String::from_utf8_lossy(&output.stderr));

    let mut server = java(&jars);
    server.arg("kafka.Kafka").arg(&properties);
    let mut watchdog = Command::new("sh");
    watchdog.args(["-c", WATCHDOG, "watchdog"]).arg(&folder).arg(server.get_program()).args(server.get_args());
    // A group of its own: an interrupt from the terminal must not end the watchdog before its server.
    std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
    let mut child = watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell");
    let input = child.stdin.take().expect("the watchdog's input");
    let brokers = format!("127.0.0.1:{port}");
    let log = folder.join("server.log");
    if let Err(error) = wait_until_ready(&brokers) {
        panic!("Kafka did not start: {error}\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    Cluster { brokers, _server: Some((child, input)) }
}

/// Records are kept for ever: by default those with times of long ago, as tests have them, are deleted half a minute after the start.
fn server_properties(port: u16, controller: u16, data: &Path) -> String {
    let data = data.display();
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={data}\n\
         auto.create.topics.enable=false\ndefault.replication.factor=1\nmin.insync.replicas=1\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=500\ngroup.initial.rebalance.delay.ms=0\n\
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
