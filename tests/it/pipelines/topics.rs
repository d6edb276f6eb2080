//! Topics that a pipeline names and a cluster does not have.

use super::{Place, failure, success};

const MANIFEST: &str = "\
pipeline: NAME
sources:
  in: { topic: NAME.in, schema: { n: int } }
  more: { topic: NAME.more, schema: { n: int } }
sinks:
  - { from: in, topic: NAME.out }
  - { from: more, topic: NAME.made, create: true }
on_error: { dead_letter: NAME.dead }
";

#[test]
fn missing_topics_come_with_commands_that_make_them() {
    let Some(place) = Place::kafka() else { return };
    place.write(MANIFEST);
    place.topic("NAME.in", "3");
    let said = failure(&place.command(&["run", "pipeline.yaml", "--until-end"]).output().unwrap(), 3);
    let commands: Vec<_> = said.lines().filter_map(|line| Some(line.split_once("millstream topic create ")?.1.trim().to_owned())).collect();
    let brokers = place.brokers.as_deref().unwrap();
    let expected = ["more", "out --partitions 3", "dead --partitions 3"].map(|topic| {
        let (topic, partitions) =
            topic.split_once(' ').map_or((topic, String::new()), |(topic, partitions)| (topic, format!(" {partitions}")));
        format!("{}.{topic}{partitions} --brokers {brokers}", place.name)
    });
    assert_eq!(commands, expected, "{said}");
    for command in &commands {
        let arguments: Vec<_> = ["topic", "create"].into_iter().chain(command.split(' ')).collect();
        success(&place.command(&arguments).env_remove("MILLSTREAM_BROKERS").output().unwrap());
    }
    assert_eq!(place.run_well(&[]), 0);
}
