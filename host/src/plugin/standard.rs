//! The standard plugins, embedded as components. They stand on the SDK like anybody's.

macro_rules! standard {
    ($($name:literal),*) => {
        /// What a manifest may name as `plugin:` without a path.
        pub const NAMES: &[&str] = &[$($name),*];

        /// The component of a standard plugin.
        pub fn component(name: &str) -> Option<&'static [u8]> {
            match name {
                $($name => Some(include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm"))),)*
                _ => None,
            }
        }
    };
}
standard!("filter", "map", "mask", "enrich", "aggregate", "join");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_component() {
        for name in NAMES {
            // The preamble of a component, version 13 of the binary format, layer 1.
            let component = component(name).unwrap();
            assert!(component.starts_with(b"\0asm\x0d\0\x01\0"), "{name}");
        }
        assert!(component("no-such-plugin").is_none());
    }
}
