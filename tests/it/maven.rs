//! Java for tests: its tools, and jars from Maven Central, fetched once and kept.
//!
//! `MILLSTREAM_TEST_CACHE` is where they are kept (default: the target folder).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Kafka that tests run and compare with.
pub const KAFKA: &str = "4.1.0";

/// Whether these tools are there. If not, says that `what` is skipped and what it would need; under `CI=true` that is a failure.
pub fn there(what: &str, tools: &[&str], needs: &str) -> bool {
    let missing = |tool: &&&str| {
        let answer = Command::new(tool).arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        !answer.is_ok_and(|status| status.success())
    };
    let Some(tool) = tools.iter().find(missing) else { return true };
    let message = format!("there is no `{tool}`: {what} need {needs}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
    // Past the capture of test output: this is not to be overlooked.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {what}. {message} ***\n");
    false
}

fn cache() -> PathBuf {
    match std::env::var_os("MILLSTREAM_TEST_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target folder").join("kafka"),
    }
}

/// The folder `name` of the cache with the jars of an artifact of Kafka and all that it needs, fetched if it is not there. Complete or
/// absent, also when several processes fetch at once.
pub fn jars(name: &str, artifact: &str) -> PathBuf {
    let cache = cache();
    let jars = cache.join(name);
    if jars.is_dir() {
        return jars;
    }
    std::fs::create_dir_all(&cache).expect("the cache folder");
    let work = tempfile::tempdir_in(&cache).expect("a folder in the cache");
    std::fs::write(work.path().join("pom.xml"), pom(artifact)).expect("the pom");
    let output = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=jars"])
        .current_dir(work.path())
        .stdin(Stdio::null())
        .output()
        .expect("maven");
    assert!(output.status.success(), "Maven could not fetch {artifact}:\n{}", String::from_utf8_lossy(&output.stdout));
    if let Err(error) = std::fs::rename(work.path().join("jars"), &jars) {
        assert!(jars.is_dir(), "{}: {error}", jars.display());
    }
    jars
}

fn pom(artifact: &str) -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>millstream</groupId><artifactId>test</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>{artifact}</artifactId><version>{KAFKA}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"#
    )
}

/// Java with these places of classes, for work that is over soon or is no speed to measure; it says only what is at least of this level.
pub fn java(classes: &[PathBuf], level: &str) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg(format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"))
        .arg("-cp")
        .arg(std::env::join_paths(classes).expect("paths without a colon"));
    command
}
