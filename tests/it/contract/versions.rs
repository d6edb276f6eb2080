//! Components of other versions of the contract: what fits is served, what does not is told with both versions and the remedy.

use super::frozen_guest;
use crate::guests;
use millstream::plugin::Loader;
use millstream::plugin::engine::{CONTRACT, Contract, Engine};

const OPTIONAL: [&str; 3] = ["emitting", "timed", "migration"];

/// The same component with another version, of as many characters as `from` has, in the names of interfaces that `named` picks.
fn of_version(component: &[u8], from: &str, to: &str, named: impl Fn(&str) -> bool) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let (package, version) = (b"millstream:plugin/", format!("@{from}"));
    let mut changed = component.to_vec();
    let mut at = 0;
    while let Some(found) = changed[at..].windows(package.len()).position(|bytes| bytes == package) {
        at += found + package.len();
        let name: Vec<u8> = changed[at..].iter().copied().take_while(u8::is_ascii_lowercase).collect();
        let end = at + name.len();
        if changed[end..].starts_with(version.as_bytes()) && named(std::str::from_utf8(&name).unwrap()) {
            changed[end + 1..end + version.len()].copy_from_slice(to.as_bytes());
        }
    }
    assert!(changed != component, "no version {from} in the component");
    changed
}

fn refusal(component: &[u8]) -> String {
    match Engine::new().unwrap().load(component) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn the_frozen_guest_uses_all_of_its_contract() {
    let plugin = Engine::new().unwrap().load(&frozen_guest()).unwrap();
    let mut imports = plugin.imports().to_vec();
    imports.sort();
    assert_eq!(imports, ["log", "state", "tables", "timers", "windows"]);
    assert!(OPTIONAL.iter().all(|export| plugin.offers(export)));
    assert_eq!(plugin.contract(), Contract { major: 1, minor: 0 });
    assert!(plugin.contract() <= CONTRACT);
}

/// A third number says nothing: 1.0.7 is 1.0, imports and exports alike.
#[test]
fn a_component_of_another_third_number_is_served() {
    let engine = Engine::new().unwrap();
    for component in [&frozen_guest(), guests::timers()] {
        let (plain, changed) = (engine.load(component).unwrap(), engine.load(&of_version(component, "1.0.0", "1.0.7", |_| true)).unwrap());
        assert_ne!(plain.digest(), changed.digest());
        assert_eq!(plain.about(), changed.about());
        assert_eq!(plain.imports(), changed.imports());
        assert_eq!(OPTIONAL.map(|export| plain.offers(export)), OPTIONAL.map(|export| changed.offers(export)));
    }
}

#[test]
fn a_component_of_a_version_that_is_not_served_is_told_both_and_the_remedy() {
    let (older, newer) = ("build it anew with the SDK of this version", "run a newer host, or build the plugin with the SDK of this one");
    // The next minor version of this host's, as long as it has one digit.
    let next = format!("{}.{}.0", CONTRACT.major, CONTRACT.minor + 1);
    let major = format!("{}.0.0", CONTRACT.major + 1);
    for (version, remedy) in [("0.1.0", older), (next.as_str(), newer), (major.as_str(), newer)] {
        let told = refusal(&of_version(&frozen_guest(), "1.0.0", version, |_| true));
        for part in [
            &format!("version {version} of the plugin contract"),
            &format!("this host {}", if remedy == older { "serves" } else { "knows" }),
            &CONTRACT.to_string(),
            remedy,
        ] {
            assert!(told.contains(part), "{part:?} is not in: {told}");
        }
    }
    // One interface is enough: what it stands for would be missing, or never be called.
    for name in ["types", "state", "windows", "transform", "migration"] {
        let told = refusal(&of_version(&frozen_guest(), "1.0.0", &next, |other| other == name));
        assert!(told.contains(&format!("version {next}")) && told.contains(newer), "{name}: {told}");
    }
}
