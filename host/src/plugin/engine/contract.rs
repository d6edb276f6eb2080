//! Versions of the plugin contract, and which of them this host serves.

use anyhow::bail;

/// What this host speaks: the version of `wit/plugin.wit`, whose third number says nothing.
pub const CONTRACT: Contract = Contract { major: 1, minor: 0 };

/// A version of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contract {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Contract {
    /// `1.0.3`, as it stands behind the `@` of an interface. None: no version, or one that was never published (`1.0.0-rc.1`).
    pub fn parse(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(|number| number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?);
        let contract = Self { major: numbers.next()??, minor: numbers.next()?? };
        numbers.next()?.filter(|_| numbers.next().is_none()).map(|_: u32| contract)
    }

    /// Whether a host of this contract runs a component that was built for `version`. Err: a message for the user.
    ///
    /// An older minor version is served whole. A newer one is refused though it might link: what it describes in JSON and exports beyond this contract would be
    /// passed over without a word.
    pub fn serves(self, version: &str) -> anyhow::Result<Self> {
        match Self::parse(version) {
            Some(built) if built.major == self.major && built.minor <= self.minor => Ok(built),
            Some(built) if built < self => bail!(
                "it was built for version {version} of the plugin contract, this host serves {self}: build it anew with the SDK of this version"
            ),
            Some(_) => bail!(
                "it was built for version {version} of the plugin contract, this host knows {self}: run a newer host, or build the plugin with the SDK of this one"
            ),
            None => bail!(
                "it names `{version}` as its version of the plugin contract, which is none; this host serves {self}: build it anew with the SDK of this version"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_speaks_what_the_published_contract_says() {
        let wit = include_str!("../../../../wit/plugin.wit");
        assert!(wit.contains(&format!("package millstream:plugin@{CONTRACT}.0;")), "wit/plugin.wit is of another version than {CONTRACT}");
    }

    #[test]
    fn older_minor_versions_are_served_and_newer_ones_are_not() {
        let host = Contract { major: 1, minor: 2 };
        for served in ["1.0.0", "1.2.0", "1.1.17"] {
            assert_eq!(host.serves(served).unwrap(), Contract::parse(served).unwrap());
        }
        for (version, remedy) in [
            ("0.1.0", "with the SDK of this version"),
            ("0.9.9", "with the SDK of this version"),
            ("1.3.0", "run a newer host"),
            ("2.0.0", "run a newer host"),
            ("", "which is none"),
            ("1", "which is none"),
            ("1.0", "which is none"),
            ("1.0.0.0", "which is none"),
            ("1.0.0-rc.1", "which is none"),
            ("1.+1.0", "which is none"),
            ("1.99999999999.0", "which is none"),
        ] {
            let refusal = host.serves(version).unwrap_err().to_string();
            assert!(refusal.contains(remedy) && refusal.contains(version) && refusal.contains("1.2"), "{version}: {refusal}");
        }
    }
    /// What the next host does with a component of 1.0: its interfaces are of another version, and have functions that the component does not know.
    #[test]
    fn a_component_of_1_0_links_and_is_found_where_the_contract_is_1_1() {
        use wasmtime::component::{Component, Linker};
        let engine = wasmtime::Engine::default();
        let component = Component::from_binary(&engine, include_bytes!("../../../../tests/frozen/1.0/frozen.wasm")).unwrap();
        let linked = |version: &str| {
            let mut linker = Linker::<()>::new(&engine);
            let interfaces: [(&str, &[&str]); 7] = [
                ("types", &[]),
                ("state", &["get-many", "put-many", "delete-many", "scan", "count"]),
                ("tables", &["lookup"]),
                ("log", &["write"]),
                ("windows", &["stream-times", "late"]),
                ("timers", &["set-many", "delete-many"]),
                ("clocks", &["now"]),
            ];
            for (interface, functions) in interfaces {
                let mut instance = linker.instance(&format!("millstream:plugin/{interface}@{version}")).unwrap();
                functions.iter().for_each(|function| instance.func_new(function, |_, _, _, _| Ok(())).unwrap());
            }
            linker.instantiate_pre(&component).map(drop)
        };
        linked("1.1.0").unwrap();
        assert!(linked("2.0.0").is_err());
        let found = |version: &str, interface: &str, function: &str| {
            let interface = component.get_export_index(None, format!("millstream:plugin/{interface}@{version}").as_str())?;
            component.get_export_index(Some(&interface), function)
        };
        for (interface, function) in [("transform", "process"), ("emitting", "emit"), ("timed", "fire"), ("migration", "migrate")] {
            assert!(found("1.1.0", interface, function).is_some(), "{interface}");
            assert!(found("2.0.0", interface, function).is_none(), "{interface}");
        }
    }
}
