//! `millstream.toml`: settings of this machine. Pipelines do not stand here, and nothing here changes what a pipeline means.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that is read if there is one and none was named.
const DEFAULT_FILE: &str = "millstream.toml";

/// The settings of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub kafka: KafkaSettings,
}

/// Raw keys of the Kafka client (librdkafka), checked.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaSettings {
    pub common: BTreeMap<String, String>,
    pub consumer: BTreeMap<String, String>,
    pub producer: BTreeMap<String, String>,
    /// `group.protocol` of the consumer; not among its raw keys, since only members of groups have one.
    pub group_protocol: GroupProtocol,
}

/// How the members of a group agree on who has which partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupProtocol {
    /// Members are told to give everything up, and one of them assigns it anew.
    #[default]
    Classic,
    /// KIP-848: the brokers assign, and a member gives up only what another gets. Brokers from 4.0 on.
    Consumer,
}

/// Keys alone: values may be secrets.
impl std::fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = |table: &BTreeMap<String, String>| table.keys().cloned().collect::<Vec<_>>();
        f.debug_struct("KafkaSettings")
            .field("common", &keys(&self.common))
            .field("consumer", &keys(&self.consumer))
            .field("producer", &keys(&self.producer))
            .field("group_protocol", &self.group_protocol)
            .finish()
    }
}

/// Mistakes in a settings file, all of them.
#[derive(Debug, thiserror::Error)]
#[error("{}: {}", file.display(), mistakes.join("\n  "))]
pub struct SettingsError {
    pub file: PathBuf,
    pub mistakes: Vec<String>,
}

/// Keys that Millstream sets itself, and why they are not the user's.
const OWNED: &[(&[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "the brokers are named by --brokers or MILLSTREAM_BROKERS"),
    (&["group.id"], "the group is the pipeline's name"),
    (&["group.instance.id"], "members are named after this host's id, so that a restart takes its own partitions back"),
    (
        &["enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms", "enable.auto.offset.store"],
        "positions are committed together with the output, never by themselves",
    ),
    (&["auto.offset.reset"], "where a pipeline starts to read is a part of its source"),
    (&["isolation.level"], "only committed records are read"),
    (&["enable.partition.eof"], "the ends of partitions are needed for --until-end"),
    (&["partition.assignment.strategy", "group.remote.assignor"], "`range` keeps topics that are joined together"),
    (&["transactional.id"], "it is made of the pipeline and this host's id, so that a restart ends what was left open"),
    (&["enable.idempotence", "acks", "request.required.acks", "enable.gapless.guarantee"], "exactly-once needs them as they are"),
    (&["message.timeout.ms", "delivery.timeout.ms"], "it follows `transaction.timeout.ms`"),
    (&["partitioner"], "partitions are chosen as Kafka's Java clients do it, by murmur2 of the key"),
    (&["delivery.report.only.error", "dr_cb", "dr_msg_cb"], "failed records are reported by the commit"),
    (&["allow.auto.create.topics"], "topics are created on request only"),
    (&["log.queue", "log_level", "log.thread.name", "log.connection.close"], "the client's log goes to the log of millstream; see --log"),
    (&["plugin.library.paths"], "no code is loaded into this process"),
    (&["enable.random.seed", "opaque", "default_topic_conf"], "it is of no use here"),
];

/// Keys that the brokers decide where the group's protocol is `consumer`, and the brokers' own names of them.
const BROKERS_DECIDE: &[(&str, &str)] =
    &[("session.timeout.ms", "group.consumer.session.timeout.ms"), ("heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms")];

/// The beginnings of keys that work only where TLS is built in.
const NEEDS_TLS: &[&str] = &["ssl.", "sasl.", "enable.sasl.", "enable.ssl.", "ssl_", "https.ca."];

/// Whether a key's value must never be printed.
fn is_secret(key: &str) -> bool {
    ["password", "secret", ".pem", "token", "jaas", "sasl.username", "sasl.oauthbearer.config"].iter().any(|part| key.contains(part))
}

impl Settings {
    /// The settings of `file`; without one, of `millstream.toml` in the working folder if it is there.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let (path, text) = match file {
            Some(path) => (path, std::fs::read_to_string(path).with_context(|| format!("cannot read the settings {}", path.display()))?),
            None => {
                let path = Path::new(DEFAULT_FILE);
                match std::fs::read_to_string(path) {
                    Ok(text) => (path, text),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
                    Err(error) => return Err(error).with_context(|| format!("cannot read the settings {DEFAULT_FILE}")),
                }
            }
        };
        Ok(Self::parse(&text, path)?)
    }

    /// Reads settings; `file` is named in errors.
    pub fn parse(text: &str, file: &Path) -> Result<Self, SettingsError> {
        let mut settings = Self::default();
        let mut mistakes = Vec::new();
        match text.parse::<toml::Table>() {
            Ok(tables) => {
                for (name, value) in tables {
                    match (name.as_str(), value) {
                        ("kafka", toml::Value::Table(table)) => settings.kafka = kafka(table, &mut mistakes),
                        ("kafka", _) => mistakes.push("`kafka` is a table: [kafka]".to_owned()),
                        (_, toml::Value::Table(_)) => mistakes.push(format!("there is no table [{name}]; [kafka] is the only one")),
                        (_, _) => mistakes
                            .push(format!("the key `{name}` stands outside of any table; keys of the Kafka client stand under [kafka]")),
                    }
                }
            }
            // The message alone: the crate's full form shows the line, and with it perhaps a secret.
            Err(error) => {
                let line = error.span().map(|span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
                let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
                mistakes.push(format!("{place}{}", error.message()));
            }
        }
        if mistakes.is_empty() { Ok(settings) } else { Err(SettingsError { file: file.to_owned(), mistakes }) }
    }
}

fn kafka(table: toml::Table, mistakes: &mut Vec<String>) -> KafkaSettings {
    let mut settings = KafkaSettings::default();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("consumer", toml::Value::Table(table)) => settings.consumer = keys(flat(table), "kafka.consumer", mistakes),
            ("producer", toml::Value::Table(table)) => settings.producer = keys(flat(table), "kafka.producer", mistakes),
            (_, value) => settings.common.extend(keys(flat(toml::Table::from_iter([(key, value)])), "kafka", mistakes)),
        }
    }
    group_protocol(&mut settings, mistakes);
    settings
}

/// Takes `group.protocol` out of the raw keys, and refuses what does not go with it.
fn group_protocol(settings: &mut KafkaSettings, mistakes: &mut Vec<String>) {
    for (table, keys) in [("kafka", &mut settings.common), ("kafka.producer", &mut settings.producer)] {
        if keys.remove("group.protocol").is_some() {
            mistakes.push(format!("[{table}] `group.protocol`: it stands under [kafka.consumer]"));
        }
    }
    match settings.consumer.remove("group.protocol").as_deref() {
        None | Some("classic") => return,
        Some("consumer") => settings.group_protocol = GroupProtocol::Consumer,
        Some(_) => return mistakes.push("[kafka.consumer] `group.protocol`: `classic` or `consumer` is expected".to_owned()),
    }
    for (table, keys) in [("kafka", &settings.common), ("kafka.consumer", &settings.consumer)] {
        for (key, name) in BROKERS_DECIDE.iter().filter(|(key, _)| keys.contains_key(*key)) {
            mistakes.push(format!(
                "[{table}] `{key}`: with `group.protocol = \"consumer\"` the brokers decide it, by `{name}`; leave it out here"
            ));
        }
        if keys.contains_key("group.protocol.type") {
            mistakes.push(format!("[{table}] `group.protocol.type`: there is none with `group.protocol = \"consumer\"`; leave it out"));
        }
    }
}

/// Keys with dots may stand in quotes or not: without, TOML reads `a.b = 1` as a table `a`.
fn flat(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut flattened = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flattened.extend(flat(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value))),
            value => flattened.push((key, value)),
        }
    }
    flattened
}

fn keys(values: Vec<(String, toml::Value)>, table: &str, mistakes: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut checked = BTreeMap::new();
    for (key, value) in values {
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Float(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => {
                mistakes.push(format!("[{table}] `{key}`: a text, a number, true or false is expected"));
                continue;
            }
        };
        match check(&key, &value) {
            Ok(()) => drop(checked.insert(key, value)),
            Err(mistake) => mistakes.push(format!("[{table}] `{key}`: {mistake}")),
        }
    }
    checked
}

fn check(key: &str, value: &str) -> Result<(), String> {
    if let Some((_, reason)) = OWNED.iter().find(|(names, _)| names.contains(&key)) {
        return Err(format!("Millstream sets it itself: {reason}"));
    }
    let plain = value.eq_ignore_ascii_case("plaintext");
    if !cfg!(feature = "tls") && ((key == "security.protocol" && !plain) || NEEDS_TLS.iter().any(|prefix| key.starts_with(prefix))) {
        return Err("this build has no TLS and SASL; build it with `cargo build --release --features tls`".to_owned());
    }
    let description = match ClientConfig::new().set(key, value).create_native_config() {
        Ok(_) => return Ok(()),
        Err(KafkaError::ClientConfig(_, description, _, _)) => description,
        Err(error) => error.to_string(),
    };
    // librdkafka's own words name the value.
    Err(if is_secret(key) { "the Kafka client does not take this value".to_owned() } else { description })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(text, Path::new("millstream.toml")).map_err(|error| error.to_string())
    }

    fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
        entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn keys_stand_quoted_or_dotted_for_both_or_one_client() {
        let settings = parse(
            "[kafka]\n\"client.id\" = \"mine\"\nsocket.keepalive.enable = true\n[kafka.consumer]\nfetch.max.bytes = 1000000\n[kafka.producer]\n\"linger.ms\" = 2.5\n",
        )
        .expect("valid settings");
        assert_eq!(settings.kafka.common, map([("client.id", "mine"), ("socket.keepalive.enable", "true")]));
        assert_eq!(settings.kafka.consumer, map([("fetch.max.bytes", "1000000")]));
        assert_eq!(settings.kafka.producer, map([("linger.ms", "2.5")]));
        assert_eq!(parse("").expect("nothing is fine"), Settings::default());
    }

    #[test]
    fn owned_keys_are_refused_with_the_reason() {
        for (keys, reason) in OWNED {
            for key in *keys {
                let error = parse(&format!("[kafka.consumer]\n\"{key}\" = \"x\"\n")).expect_err(key);
                assert!(error.contains(&format!("`{key}`")) && error.contains(reason), "{error}");
            }
        }
    }

    #[test]
    fn the_groups_protocol_is_chosen_for_members_alone() {
        assert_eq!(parse("").expect("nothing is fine").kafka.group_protocol, GroupProtocol::Classic);
        for (name, protocol) in [("classic", GroupProtocol::Classic), ("consumer", GroupProtocol::Consumer)] {
            let settings = parse(&format!("[kafka.consumer]\ngroup.protocol = \"{name}\"\n")).expect(name).kafka;
            assert_eq!(settings.group_protocol, protocol);
            // Clients that join no group are not given it.
            assert_eq!(settings.consumer, map([]));
        }
        for value in ["\"Consumer\"", "\"share\"", "848", "true"] {
            let error = parse(&format!("[kafka.consumer]\ngroup.protocol = {value}\n")).expect_err(value);
            assert!(error.contains("`group.protocol`"), "{error}");
        }
        for table in ["kafka", "kafka.producer"] {
            let error = parse(&format!("[{table}]\ngroup.protocol = \"consumer\"\n")).expect_err(table);
            assert!(error.contains(&format!("[{table}] `group.protocol`")) && error.contains("[kafka.consumer]"), "{error}");
        }
    }

    #[test]
    fn what_the_brokers_decide_is_refused_with_their_name_of_it() {
        let protocol = "\"group.protocol\" = \"consumer\"\n";
        for (key, name) in BROKERS_DECIDE {
            for text in [
                format!("[kafka.consumer]\n{protocol}\"{key}\" = 6000\n"),
                format!("[kafka]\n\"{key}\" = 6000\n[kafka.consumer]\n{protocol}"),
            ] {
                let error = parse(&text).expect_err(key);
                assert!(error.contains(&format!("`{key}`")) && error.contains(name), "{error}");
            }
            parse(&format!("[kafka.consumer]\n\"{key}\" = 6000\n")).expect("it goes with the classic protocol");
        }
        let error = parse(&format!("[kafka.consumer]\n{protocol}group.protocol.type = \"consumer\"\n")).expect_err("no type");
        assert!(error.contains("`group.protocol.type`"), "{error}");
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_file_and_key() {
        let error = parse("loose = 1\n[store]\n[kafka]\nlinger.msx = 1\nlinger.ms = \"soon\"\nretries = [1]\ngroup.id = \"mine\"\n")
            .expect_err("mistakes");
        for part in [
            "millstream.toml",
            "`loose`",
            "[store]",
            "`linger.msx`: No such configuration property",
            "`linger.ms`",
            "`retries`",
            "`group.id`",
        ] {
            assert!(error.contains(part), "{part} in: {error}");
        }
    }

    #[test]
    fn values_of_secrets_are_never_printed() {
        let secret = "hunter2";
        for text in [
            format!("[kafka]\nsasl.password = \"{secret}\"\nssl.key.pem = \"{secret}\"\nsasl.mechanisms = \"PLAIN\"\n"),
            format!("[kafka]\nsasl.password = \"{secret}\n"),
            format!("sasl.password = \"{secret}\"\n"),
            format!("[kafka]\nsasl.password = [\"{secret}\"]\n"),
        ] {
            match parse(&text) {
                Ok(settings) => assert!(!format!("{settings:?}").contains(secret)),
                Err(error) => assert!(!error.contains(secret), "{error}"),
            }
        }
        let settings = KafkaSettings { common: map([("sasl.password", secret)]), ..KafkaSettings::default() };
        assert!(!format!("{settings:?}").contains(secret));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn security_without_tls_names_the_feature() {
        for text in ["security.protocol = \"SASL_SSL\"", "sasl.mechanism = \"PLAIN\"", "ssl.ca.location = \"ca.pem\""] {
            let error = parse(&format!("[kafka]\n{text}\n")).expect_err(text);
            assert!(error.contains("--features tls"), "{error}");
        }
        parse("[kafka]\nsecurity.protocol = \"plaintext\"\n").expect("no TLS asked for");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Settings::load(Some(Path::new("/nowhere/millstream.toml"))).expect_err("no file");
        assert!(format!("{error:#}").contains("/nowhere/millstream.toml"));
    }
}
