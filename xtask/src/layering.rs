//! Who may look at whom among the crates, and which crate is whose door to the outside.
//!
//! The rule is a pure function over a graph; `tests/layering.rs` gives it the real one, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

/// A package of the workspace and what its `Cargo.toml` declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// As in `[package]`.
    pub name: String,
    /// Optional ones and those of other platforms too.
    pub dependencies: Vec<Dependency>,
}

/// One declared dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The package's own name, also where it is renamed.
    pub name: String,
    /// Whether only tests, benches and examples see it.
    pub is_dev: bool,
}

/// What a package may depend on among ours, tests aside.
enum Layer {
    Only(&'static [&'static str]),
    All,
}

const LAYERS: &[(&str, Layer)] = &[
    ("recache-model", Layer::Only(&[])),
    ("recache-cache", Layer::Only(&[])),
    ("recache-api", Layer::Only(&[])),
    ("recache-store", Layer::Only(&["recache-model"])),
    ("recache-worker", Layer::Only(&["recache-api"])),
    ("recache-engine", Layer::Only(&["recache-store", "recache-cache", "recache-model", "recache-worker"])),
    // The types of records, not their doors: documents are made of them.
    (
        "recache-server",
        Layer::Only(&["recache-engine", "recache-api", "recache-store", "recache-cache", "recache-model"]),
    ),
    ("recache-cli", Layer::All),
    ("recache", Layer::All),
    // For tests only.
    ("recache-faultproxy", Layer::Only(&[])),
    ("xtask", Layer::Only(&[])),
];

/// Outside system, the crate that is its door, and how the names of its drivers begin.
const DOORS: &[(&str, &str, &[&str])] = &[
    (
        "SQL",
        "recache-store",
        &["sqlx", "tokio-postgres", "postgres", "rusqlite", "libsqlite3-sys", "diesel", "sea-orm"],
    ),
    ("redis and memcached", "recache-cache", &["redis", "fred", "memcache", "async-memcached"]),
    ("axum", "recache-server", &["axum"]),
    ("clap", "recache-cli", &["clap"]),
];

/// Everything in the graph that breaks the rules of `ARCHITECTURE.md`, each as a sentence; empty when nothing does.
///
/// Tests may look further (dev-dependencies), but never in a circle.
pub fn violations(packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let Some((_, layer)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            found.push(format!("`{name}` has no place in the layers"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.is_dev) {
            let on = dependency.name.as_str();
            if ours.contains(on) && !layer.allows(on) {
                found.push(format!("`{name}` must not depend on `{on}`"));
            }
            for (system, door, drivers) in DOORS {
                if name != *door && drivers.iter().any(|driver| is_family(on, driver)) {
                    found.push(format!("`{name}` must not depend on `{on}`: {system} only in `{door}`"));
                }
            }
        }
    }
    found.extend(cycle(packages, &ours));
    found
}

impl Layer {
    fn allows(&self, name: &str) -> bool {
        match self {
            Self::Only(names) => names.contains(&name),
            Self::All => true,
        }
    }
}

/// `sqlx` and `sqlx-core`, `clap` and `clap_complete`, but not `redistribute`.
fn is_family(name: &str, head: &str) -> bool {
    name.strip_prefix(head).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// One circle among ours, dev-dependencies counted: packages are taken away as long as one depends on none that is left.
fn cycle(packages: &[Package], ours: &BTreeSet<&str>) -> Option<String> {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        // A package that names itself among its dev-dependencies turns a feature on for its own tests; that is no way
        // to anybody else.
        let others = package
            .dependencies
            .iter()
            .filter(|dependency| !(dependency.is_dev && dependency.name == package.name));
        let on = others.map(|dependency| dependency.name.as_str());
        left.entry(&package.name).or_default().extend(on.filter(|name| ours.contains(name)));
    }
    loop {
        let free: Vec<&str> = left.iter().filter(|(_, on)| on.is_empty()).map(|(name, _)| *name).collect();
        if free.is_empty() {
            break;
        }
        for name in free {
            left.remove(name);
            for on in left.values_mut() {
                on.remove(name);
            }
        }
    }
    // Whoever is left depends on somebody who is left: walked on, that comes back to where it was.
    let mut path = vec![*left.keys().next()?];
    loop {
        let next = *left.get(path.last()?)?.iter().next()?;
        if let Some(start) = path.iter().position(|name| *name == next) {
            path.push(next);
            let circle: Vec<String> = path.iter().skip(start).map(|name| format!("`{name}`")).collect();
            return Some(format!("a circle: {}", circle.join(" -> ")));
        }
        path.push(next);
    }
}

/// The crates that a text describes: its headings of the form `### crates/name`.
pub fn crates_described(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("### crates/"))
        .map(|name| name.trim().to_owned())
        .collect()
}

/// How a map and the tree differ, each as a sentence: what is missing, what is gone, what is there twice.
pub fn map_differences(described: &[String], existing: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for name in described {
        if !existing.contains(name) {
            found.push(format!("`crates/{name}` is described and does not exist"));
        }
        if !seen.insert(name) {
            found.push(format!("`crates/{name}` is described twice"));
        }
    }
    found.extend(
        existing
            .iter()
            .filter(|name| !seen.contains(name))
            .map(|name| format!("`crates/{name}` exists and is not described")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, normal: &[&str], dev: &[&str]) -> Package {
        let dependency = |is_dev| move |name: &&str| Dependency { name: (*name).to_owned(), is_dev };
        let dependencies =
            normal.iter().map(dependency(false)).chain(dev.iter().map(dependency(true))).collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn the_design_itself_holds() {
        let packages = [
            package("recache-model", &["serde"], &["proptest"]),
            package("recache-cache", &["redis", "moka"], &[]),
            package("recache-api", &["serde"], &[]),
            package("recache-store", &["recache-model", "sqlx"], &[]),
            package("recache-worker", &["recache-api"], &[]),
            package(
                "recache-engine",
                &["recache-store", "recache-cache", "recache-model", "recache-worker"],
                &[],
            ),
            package("recache-server", &["recache-engine", "recache-api", "axum"], &["recache-store", "sqlx"]),
            package(
                "recache-cli",
                &["recache-server", "recache-engine", "recache-model", "clap"],
                &["sqlx", "axum"],
            ),
            package("recache", &["recache-engine", "recache-cache"], &[]),
            package("xtask", &[], &["cargo_metadata"]),
        ];
        assert_eq!(violations(&packages), Vec::<String>::new());
    }

    #[test]
    fn looking_past_a_layer_is_found() {
        let packages =
            [package("recache-worker", &[], &[]), package("recache-server", &["recache-worker"], &[])];
        assert_eq!(violations(&packages), ["`recache-server` must not depend on `recache-worker`"]);
    }

    #[test]
    fn calling_up_is_found_as_layer_and_as_circle() {
        let packages = [
            package("recache-model", &["recache-store"], &[]),
            package("recache-store", &["recache-model"], &[]),
        ];
        assert_eq!(
            violations(&packages),
            [
                "`recache-model` must not depend on `recache-store`",
                "a circle: `recache-model` -> `recache-store` -> `recache-model`",
            ]
        );
    }

    #[test]
    fn tests_may_look_further_but_not_in_a_circle() {
        let further =
            [package("recache-cache", &[], &["recache-model", "sqlx"]), package("recache-model", &[], &[])];
        assert_eq!(violations(&further), Vec::<String>::new());
        let circle = [
            package("recache-worker", &["recache-api"], &[]),
            package("recache-api", &[], &["recache-worker"]),
        ];
        assert_eq!(violations(&circle), ["a circle: `recache-api` -> `recache-worker` -> `recache-api`"]);
    }

    #[test]
    fn a_package_may_turn_on_a_feature_for_its_own_tests() {
        assert_eq!(violations(&[package("recache-api", &[], &["recache-api"])]), Vec::<String>::new());
        let found = violations(&[package("recache-api", &["recache-api"], &[])]);
        assert!(found.iter().any(|problem| problem.starts_with("a circle")), "{found:?}");
    }

    #[test]
    fn a_second_door_is_found() {
        for (name, driver) in [
            ("recache-engine", "sqlx"),
            ("recache-cli", "sqlx-postgres"),
            ("recache-engine", "redis"),
            ("recache-store", "async-memcached"),
            ("recache", "axum"),
            ("recache-cli", "axum-server"),
            ("recache-server", "clap_complete"),
        ] {
            let found = violations(&[package(name, &[driver], &[])]);
            assert_eq!(found.len(), 1, "{name} -> {driver}: {found:?}");
        }
    }

    #[test]
    fn a_name_that_only_begins_alike_is_no_driver() {
        assert_eq!(violations(&[package("recache-model", &["redistribute"], &[])]), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_a_place_is_found() {
        assert_eq!(
            violations(&[package("recache-util", &[], &[])]),
            ["`recache-util` has no place in the layers"]
        );
    }

    #[test]
    fn a_map_that_differs_from_the_tree_is_found() {
        let described = crates_described(
            "# Map\n\n### crates/model\nrules\n### crates/gone\n### crates/model\nsee crates/cache\n",
        );
        let existing = ["model", "cache"].map(str::to_owned).into();
        assert_eq!(
            map_differences(&described, &existing),
            [
                "`crates/gone` is described and does not exist",
                "`crates/model` is described twice",
                "`crates/cache` exists and is not described",
            ]
        );
    }
}
