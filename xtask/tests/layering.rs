//! Holds the real workspace to the rules of `ARCHITECTURE.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says what it expects")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};
use xtask::layering::{self, Dependency, Package};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn packages() -> Vec<Package> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let dependency = |dependency: &cargo_metadata::Dependency| Dependency {
        name: dependency.name.clone(),
        is_dev: dependency.kind == DependencyKind::Development,
    };
    let package = |package: &cargo_metadata::Package| Package {
        name: package.name.to_string(),
        dependencies: package.dependencies.iter().map(dependency).collect(),
    };
    metadata.workspace_packages().into_iter().map(package).collect()
}

fn crate_folders() -> BTreeSet<String> {
    fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn no_crate_looks_where_it_may_not() {
    let found = layering::violations(&packages());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_crate_is_called_after_its_folder() {
    let names: BTreeSet<String> = packages().into_iter().map(|package| package.name).collect();
    let mut expected: BTreeSet<String> = crate_folders()
        .iter()
        .map(|folder| format!("recache-{folder}").replace("recache-recache", "recache"))
        .collect();
    expected.insert("xtask".to_owned());
    assert_eq!(names, expected);
}

#[test]
fn architecture_describes_exactly_the_crates_that_exist() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let found = layering::map_differences(&layering::crates_described(&map), &crate_folders());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}
