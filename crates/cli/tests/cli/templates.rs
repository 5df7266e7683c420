//! `recache template`: files checked and drawn, templates stored, listed and compared, over both databases.

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use recache_store::conformance::{TestDatabase, postgres_database, sqlite_database};
use tempfile::TempDir;

use super::world::{Ran, recache, run};

const WHOLE: &str = include_str!("../../../model/tests/templates/good/whole.yaml");

const ORDER: &str = "
name: order
namespace: shop
version: 1.0.0
description: Takes an order
steps:
  - { name: fetch, handler: { callable: echo } }
  - { name: bill, handler: { callable: echo }, depends_on: [fetch], timeout_seconds: 5 }
environments:
  production: { steps: [{ name: ALL, timeout_seconds: 60 }] }
";

/// Every kind of thing that can be wrong with a template's meaning, one or two of each.
const WRONG: &str = "\
name: order
version: one
lifecycle: { max_duration_minutes: 1 }
input_schema: { type: objekt }
stpes: []
steps:
  - { name: a, handler: { callable: echo }, depends_on: [c] }
  - { name: b, handler: { callable: echo }, depends_on: [a] }
  - { name: c, handler: { callable: echo }, depends_on: [b] }
  - { name: a, handler: { callable: echo } }
  - { name: d, handler: { callable: echo }, depends_on: [fetch], timeout_seconds: 90 }
  - { name: e, handler: { callable: echo }, when: input.count > and }
  - { name: f, retry: { limit: many } }
environments: { production: { steps: [{ name: bb, timeout_seconds: 1 }] } }
";

/// Steps that hang together wrongly.
const UNLINKED: &str = "\
name: order
version: 1.0.0
steps:
  - { name: choose, type: decision, handler: { callable: echo } }
  - { name: gather, type: deferred_convergence, handler: { callable: echo } }
  - { name: split, type: batchable, handler: { callable: echo } }
  - { name: worker, type: batch_worker, handler: { callable: echo }, when: results.split.ok }
";

/// A folder with these files, and a database.
struct Place {
    folder: TempDir,
    database: TestDatabase,
}

impl Place {
    fn new(database: TestDatabase) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in
            [("whole.yaml", WHOLE), ("order.yaml", ORDER), ("wrong.yaml", WRONG), ("unlinked.yaml", UNLINKED)]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let place = Self { folder, database };
        place.run(&["migrate"]).expect(0);
        place
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        run(recache(self.folder.path()).env("RECACHE_DATABASE", self.database.url()).args(arguments))
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }
}

/// Without a database: files need none.
fn without_database(folder: &Path, arguments: &[&str]) -> Ran {
    run(recache(folder).args(arguments))
}

fn untimed() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]");
    settings
}

#[test]
fn files_are_checked_drawn_and_compared_without_a_database() {
    let place = Place::new(sqlite_database());
    let folder = place.folder.path();
    let wrong = without_database(folder, &["template", "check", "wrong.yaml"]);
    assert_snapshot!("template_check_wrong_errors", wrong.err);
    assert_snapshot!("template_check_wrong_table", wrong.expect(1));
    let unlinked = without_database(folder, &["template", "check", "unlinked.yaml"]);
    assert_snapshot!("template_check_unlinked_errors", unlinked.err);

    let good = without_database(folder, &["template", "check", "order.yaml"]);
    assert_eq!(good.err, "");
    assert_snapshot!("template_check_good_table", good.expect(0));
    let whole = without_database(folder, &["template", "check", "whole.yaml", "order.yaml"]);
    assert_eq!(whole.err, "");
    assert_snapshot!("template_check_whole_table", whole.expect(0));
    let several = without_database(
        folder,
        &["template", "check", "order.yaml", "wrong.yaml", "gone.yaml", "-o", "json"],
    );
    assert_snapshot!("template_check_several_json", several.expect(1));

    let text = without_database(folder, &["template", "graph", "whole.yaml"]).expect(0);
    assert!(text.starts_with("level 1\n  check"), "{text}");
    for (form, start) in
        [("mermaid", "flowchart TD\n"), ("dot", "digraph \"shop/order 2.1.0\" {\n"), ("svg", "<svg ")]
    {
        let drawn = without_database(folder, &["template", "graph", "whole.yaml", "--as", form]).expect(0);
        assert!(drawn.starts_with(start), "{drawn}");
    }
    assert_snapshot!(
        "template_graph_json",
        without_database(folder, &["template", "graph", "order.yaml", "-o", "json"]).expect(0)
    );
    assert_snapshot!(
        "template_show_file_table",
        without_database(folder, &["template", "show", "whole.yaml"]).expect(0)
    );
    let live = without_database(
        folder,
        &["template", "show", "order.yaml", "--environment", "production", "-o", "json"],
    );
    let steps = live.json()["content"]["steps"].clone();
    assert_eq!(steps[0]["timeout_seconds"], 60);
    without_database(folder, &["template", "show", "order.yaml", "--environment", "prodution"])
        .refused(1, &["E-TEMPLATE", "no environment \"prodution\"", "did you mean `production`?"]);
    assert!(!folder.join("recache.db").exists(), "no database was made");
}

#[test]
fn unknown_fields_are_warnings_when_asked() {
    let place = Place::new(sqlite_database());
    place.write("odd.yaml", &ORDER.replace("steps:\n", "task_handler: { callable: x }\nsteps:\n"));
    place.run(&["template", "check", "odd.yaml"]).expect(1);
    let lenient = place.run(&["template", "check", "--lenient", "odd.yaml"]);
    assert!(
        lenient.err.starts_with("warning[E-TEMPLATE]: the template has no field \"task_handler\""),
        "{}",
        lenient.err
    );
    assert!(lenient.expect(0).contains("ok, 1 warning"));
    assert_eq!(place.run(&["template", "check", "--lenient", "odd.yaml", "-q"]).err, "");
    place.run(&["template", "apply", "odd.yaml"]).refused(1, &["task_handler"]);
    let applied = place.run(&["template", "apply", "--lenient", "odd.yaml"]);
    assert!(applied.err.contains("task_handler"));
    assert_eq!(applied.expect(0), "shop/order 1.0.0 stored\n");
    // What was forgiven was not stored.
    assert_eq!(
        place.run(&["template", "apply", "order.yaml"]).expect(0),
        "shop/order 1.0.0 is stored already\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_stored_over_sqlite() {
    stored(&Place::new(sqlite_database()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_stored_over_postgresql() {
    if let Some(database) = postgres_database().await {
        stored(&Place::new(database));
    }
}

fn stored(place: &Place) {
    let _untimed = untimed().bind_to_scope();
    assert_eq!(place.run(&["template", "list"]).expect(0), "");
    place
        .run(&["template", "show", "shop/order"])
        .refused(3, &["E-NOT-FOUND", "template", "shop/order", "recache template list"]);

    // All files are checked before the first is stored.
    place.run(&["template", "apply", "order.yaml", "wrong.yaml"]).refused(1, &["wrong.yaml:2:10"]);
    assert_eq!(place.run(&["template", "list"]).expect(0), "");
    assert_eq!(
        place.run(&["template", "apply", "--dry-run", "order.yaml"]).expect(0),
        "shop/order 1.0.0 would be stored\n"
    );
    assert_eq!(place.run(&["template", "list"]).expect(0), "");

    assert_snapshot!(
        "template_apply_json",
        place.run(&["template", "apply", "order.yaml", "-o", "json"]).expect(0)
    );
    assert_eq!(
        place.run(&["template", "apply", "order.yaml"]).expect(0),
        "shop/order 1.0.0 is stored already\n"
    );

    // A version is for ever.
    place.write("changed.yaml", &ORDER.replace("timeout_seconds: 5", "timeout_seconds: 6"));
    for arguments in
        [&["template", "apply", "changed.yaml"][..], &["template", "apply", "--dry-run", "changed.yaml"]]
    {
        place
            .run(arguments)
            .refused(5, &["E-CONFLICT", "shop/order 1.0.0", "immutable", "help: raise `version`"]);
    }

    // 0.10.0 is newer than 0.9.0, and a pre-release is not what everybody gets.
    for version in ["0.9.0", "0.10.0", "1.1.0", "2.0.0-rc.1"] {
        place.write("next.yaml", &ORDER.replace("1.0.0", version).replace("depends_on: [fetch], ", ""));
        place.run(&["template", "apply", "next.yaml"]).expect(0);
    }
    assert_snapshot!("template_list_table", place.run(&["template", "list"]).expect(0));
    assert_snapshot!(
        "template_list_json",
        place.run(&["template", "list", "--limit", "2", "-o", "json"]).expect(0)
    );
    // Page by page it is the same list.
    let all = place.run(&["template", "list", "-o", "json"]).json()["templates"].as_array().unwrap().clone();
    let (mut paged, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut list = vec!["template", "list", "--limit", "2", "-o", "json"];
        list.extend(after.iter().flat_map(|after| ["--after", after]));
        let page = place.run(&list).json();
        paged.extend(page["templates"].as_array().unwrap().clone());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, all);
    let table = place.run(&["template", "list", "--limit", "2"]);
    assert!(table.err.contains("there are more: --after shop/order@1.1.0"), "{}", table.err);
    place.run(&["template", "list", "--after", "order"]).refused(2, &["--after", "NAMESPACE/NAME@VERSION"]);
    let lines = place.run(&["template", "list", "--name", "order", "-o", "jsonl"]).expect(0);
    assert_eq!(lines.lines().count(), 5);
    let newest = place.run(&["template", "show", "shop/order", "-o", "json"]);
    assert_eq!(newest.json()["template"]["version"], "1.1.0");
    assert_snapshot!(
        "template_show_json",
        place.run(&["template", "show", "shop/order@1.0.0", "-o", "json"]).expect(0)
    );

    assert_snapshot!(
        "template_diff_table",
        place.run(&["template", "diff", "shop/order@1.0.0", "shop/order"]).expect(0)
    );
    assert_snapshot!(
        "template_diff_json",
        place.run(&["template", "diff", "shop/order@1.0.0", "changed.yaml", "-o", "json"]).expect(0)
    );
    let same = place.run(&["template", "diff", "order.yaml", "shop/order@1.0.0"]);
    assert_eq!((same.code, same.out.as_str(), same.err.as_str()), (0, "", "no difference in meaning\n"));

    place.run(&["template", "show", "shop/order@9.9.9"]).refused(3, &["shop/order 9.9.9"]);
    place.run(&["template", "show", "a/b/c"]).refused(2, &["NAMESPACE/NAME@VERSION"]);
    place.run(&["template", "graph", "gone.yaml"]).refused(3, &["E-FILE", "gone.yaml"]);
}

#[test]
fn a_template_may_come_from_standard_input() {
    let place = Place::new(sqlite_database());
    let mut command = recache(place.folder.path());
    let ran = run(command.args(["template", "graph", "-"]).write_stdin(ORDER));
    assert_eq!(ran.expect(0), "level 1\n  fetch\nlevel 2\n  bill <- fetch\n");
    let wrong = run(recache(place.folder.path()).args(["template", "check", "-"]).write_stdin("name: x\n"));
    assert!(wrong.err.contains("at standard input:1:1"), "{}", wrong.err);
}
