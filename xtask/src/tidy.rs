//! Rules that hold for the repository's text and that no compiler checks.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::call::root;

/// A place that belongs to one machine has no business in a source file.
#[test]
fn no_source_names_a_path_of_one_machine() {
    // Put together here, so that this file does not name them either.
    let places = ["home", "work", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut found = Vec::new();
    for file in files_of(&["rs", "toml", "md", "py", "pyi", "yml"]) {
        for (number, line) in read(&file).lines().enumerate() {
            if places.iter().any(|place| names_a_path(line, place)) {
                found.push(format!("{}:{}: {line}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "absolute paths:\n{}", found.join("\n"));
}

/// Whether a path begins with `place`; the middle of an address or of another path it does not.
fn names_a_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !".-_/}>*".contains(c))
    })
}

#[test]
fn every_package_says_what_it_is() {
    let without: Vec<_> = files_of(&["toml"])
        .into_iter()
        .filter(|file| file.ends_with("Cargo.toml"))
        .filter(|file| read(file).lines().any(|line| line == "[package]"))
        .filter(|file| !read(file).lines().any(|line| line.starts_with("description = ")))
        .collect();
    assert!(without.is_empty(), "without a description: {without:?}");
}

/// An import runs downward only, and the API never touches shared memory.
#[test]
fn layers_import_downward() {
    let forbidden = [
        ("crates/ring", &["eventpy-engine", "eventpy", "eventpy-derive"][..]),
        ("crates/engine", &["eventpy", "eventpy-derive"]),
        ("crates/eventpy", &["eventpy-ring"]),
        ("crates/eventpy-derive", &["eventpy-ring", "eventpy-engine"]),
        ("crates/python", &["eventpy-ring", "eventpy"]),
    ];
    for (package, others) in forbidden {
        let manifest = read(&root().join(package).join("Cargo.toml"));
        let dependencies = manifest.split_once("[dependencies]").map_or("", |(_, rest)| rest);
        let dependencies = dependencies.split("[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(!others.contains(&name), "{package} must not depend on {name}");
        }
    }
}

/// The ring, the engine's operating system module and the Python codec have it, and nothing else.
#[test]
fn unsafe_code_stays_where_it_belongs() {
    let allowed = ["crates/ring/src", "crates/engine/src/os.rs", "crates/python/src"];
    let words = ["{", "fn", "impl", "extern"].map(|what| format!("unsafe {what}"));
    let strays: Vec<_> = files_of(&["rs"])
        .into_iter()
        .filter(|file| file.components().any(|part| part.as_os_str() == "src"))
        .filter(|file| file.starts_with(root().join("crates")))
        .filter(|file| !allowed.iter().any(|place| file.starts_with(root().join(place))))
        .filter(|file| words.iter().any(|word| read(file).contains(word)))
        .collect();
    assert!(strays.is_empty(), "unsafe code in {strays:?}");
}

#[test]
fn every_decision_is_in_the_list() {
    let folder = root().join("docs/decisions");
    let list = read(&folder.join("README.md"));
    let unlisted: Vec<_> = fs::read_dir(&folder)
        .expect("docs/decisions exists")
        .map(|entry| entry.expect("the folder can be read").file_name())
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name != "README.md" && !list.contains(&format!("]({name})")))
        .collect();
    assert!(unlisted.is_empty(), "not in docs/decisions/README.md: {unlisted:?}");
}

/// A relative link in a document leads to a file of this repository.
#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for file in files_of(&["md"]) {
        let folder = file.parent().expect("a file is in a folder");
        for target in link_targets(&read(&file)) {
            let is_local = !target.contains("://") && !target.starts_with('#');
            let path = target.split('#').next().unwrap_or_default();
            if is_local && !folder.join(path).exists() {
                dead.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// A guarantee names the tests that prove it, as `file` or `file::name`.
#[test]
fn every_test_that_proves_a_guarantee_exists() {
    let guarantees = read(&root().join("docs/guarantees.md"));
    let quoted = guarantees.split('`').skip(1).step_by(2);
    let tests: Vec<_> = quoted.filter(|text| text.contains("tests/")).collect();
    assert!(tests.len() > 40, "the guarantees name only {} tests", tests.len());
    let missing: Vec<_> = tests.into_iter().filter(|test| !is_there(test)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

fn is_there(test: &str) -> bool {
    let (file, name) = test.split_once("::").unwrap_or((test, ""));
    fs::read_to_string(root().join(file)).is_ok_and(|text| text.contains(name))
}

/// What stands between `](` and `)`, outside of code blocks.
fn link_targets(text: &str) -> HashSet<&str> {
    let prose = text.split("```").step_by(2);
    prose
        .flat_map(|part| part.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

/// Every file of the repository with one of these endings, without what builds leave behind.
fn files_of(endings: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    files.retain(|file| {
        file.extension().and_then(|ending| ending.to_str()).is_some_and(|e| endings.contains(&e))
    });
    assert!(!files.is_empty(), "there are files that end in {endings:?}");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository can be read") {
        let path = entry.expect("a folder of the repository can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_file() {
            files.push(path);
        } else if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, files);
        }
    }
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
