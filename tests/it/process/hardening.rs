//! What the process does to keep its memory to itself.

use std::fs;

use crate::harness::{Scene, bench};

#[tokio::test(flavor = "multi_thread")]
async fn the_process_leaves_no_core_dump() {
    let scene = Scene::on(&bench().postgres().await).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", scene.leasehold.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let values: Vec<&str> = core.trim_start_matches("Max core file size").split_whitespace().collect();
    assert_eq!(values, ["0", "0", "bytes"], "soft and hard limit");
}
