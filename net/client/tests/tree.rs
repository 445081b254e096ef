//! Programs that use the client must not get a ring or an engine with it.
#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect should end there and then")]

use std::process::Command;

#[test]
fn neither_io_uring_nor_the_engine_is_in_the_tree() {
    let cargo = std::env::var_os("CARGO").unwrap();
    let tree = ["tree", "--package", "corelog-client", "--all-features", "--edges", "normal", "--prefix", "none"];
    let tree = Command::new(cargo).args(tree).args(["--locked", "--offline"]).output().unwrap();
    let (found, trouble) = (String::from_utf8_lossy(&tree.stdout), String::from_utf8_lossy(&tree.stderr));
    assert!(tree.status.success(), "{trouble}");
    let names = found.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>();
    assert!(names.contains(&"corelog-wire") && names.contains(&"tokio"), "{found}");
    for unwanted in ["io-uring", "corelog-engine", "corelog-net"] {
        assert!(!names.contains(&unwanted), "{unwanted} is in the tree:\n{found}");
    }
}
