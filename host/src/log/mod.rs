//! The two logs, and how a command finds the one that it is to use.

pub mod embedded;
mod exclusive;
pub mod kafka;

use crate::io::Log;
use std::path::PathBuf;
use std::sync::Arc;

/// Where topics are: on Kafka, if brokers are named, else in a data folder.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Kafka brokers, as HOST:PORT[,HOST:PORT...]; without them, topics live in the data folder
    #[arg(long, env = "MILLSTREAM_BROKERS", value_name = "HOST:PORT", global = true)]
    pub brokers: Option<String>,
    /// The folder of the embedded log, and of this host's identity [default: .millstream]
    #[arg(long, env = "MILLSTREAM_DATA", value_name = "DIR", global = true)]
    pub data: Option<PathBuf>,
    /// Settings of this machine, raw client keys under [kafka] among them [default: millstream.toml, if there is one]
    #[arg(long, env = "MILLSTREAM_CONFIG", value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Force every commit of the embedded log to the disk: it survives a loss of power, and each commit takes some milliseconds
    #[arg(long, env = "MILLSTREAM_SYNC", global = true)]
    pub sync: bool,
}

impl Connection {
    pub fn data_folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from(".millstream"))
    }

    /// How the embedded log is to be opened.
    pub fn embedded_options(&self) -> embedded::Options {
        let durability = if self.sync { embedded::Durability::Power } else { embedded::Durability::Process };
        embedded::Options { durability, ..embedded::Options::default() }
    }

    /// Opens the log. On a data folder that another process holds, that process is asked through its socket: all works but `member`.
    pub fn open(&self) -> anyhow::Result<Arc<dyn Log>> {
        match &self.brokers {
            Some(brokers) => kafka::open(brokers, self),
            None => embedded::open(&self.data_folder(), self.embedded_options()),
        }
    }
}
