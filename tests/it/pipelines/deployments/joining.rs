//! A host that joins while a command waits for another.

use super::{Fleet, SERVE, answer};
use crate::pipelines::crash_suite::host::Host;
use crate::pipelines::{Place, until};

fn write(fleet: &Fleet, version: u64) {
    fleet.place.write(&format!(
        "\
pipeline: NAME
sources:
  in: {{ topic: NAME.in, schema: {{ a: text, n: int }} }}
stages:
  - {{ name: stamp, plugin: map, with: {{ set: {{ v: '{version}' }} }} }}
sinks:
  - {{ from: stamp, topic: NAME.out }}
"
    ));
}

/// The next generation is deployed while the first host stands still, and another joins. False: it stood still for so long that it was taken for gone.
fn joins_during(fleet: &Fleet, how: &[&str], generation: u64) -> bool {
    write(fleet, generation);
    fleet.hosts[0].halt();
    let arguments = [&["deploy", "pipeline.yaml", "--timeout", "60", "--fleet", "NAME", "--output", "json"], how].concat();
    let command = fleet.place.command(&arguments).spawn().unwrap();
    until("the command waits for the first host", || fleet.status()["next"]["generation"] == generation);
    let mut joins = Host::new(&fleet.place, &format!("joins-{generation}"), &SERVE);
    joins.start(&fleet.place, None);
    until("the host that joins has prepared both generations", || {
        assert!(!joins.is_dead());
        joins.said().matches("preparing a generation").count() >= 2 || fleet.status()["next"].is_null()
    });
    fleet.hosts[0].go_on();

    let (code, told, error) = answer(&command.wait_with_output().unwrap());
    let gone = code == 9 && told.to_string().contains("no sign of life");
    assert!(gone || code == 0 && told["state"] == "running", "{how:?}: {code} {told} {error}");
    assert!(joins.stop().success());
    !gone
}

#[test]
fn a_host_that_joins_in_the_midst_of_a_deployment_follows() {
    let Some(place) = Place::kafka() else { return };
    let fleet = Fleet::on(place, 1).start();
    write(&fleet, 1);
    fleet.good(&["deploy", "pipeline.yaml"]);
    fleet.feed(0..10);
    fleet.worked(0, 10, 1);
    let mut generation = 1;
    for how in [&["--canary", "0", "--promote-after", "never"][..], &["--shadow"], &[]] {
        generation += 1;
        let mut attempts = 0;
        while !joins_during(&fleet, how, generation) {
            generation += 1;
            attempts += 1;
            assert!(attempts < 5, "the first host is always taken for gone");
        }
        if !how.is_empty() {
            let ended = fleet.good(&["rollback", "NAME"]);
            generation = ended["generation"].as_u64().unwrap().max(generation);
        }
    }
    fleet.feed(10..20);
    fleet.worked(10, 20, generation);
    assert_eq!(fleet.status()["active"]["generation"], generation);
    fleet.stop();
}
