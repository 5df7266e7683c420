//! What goes where: data to stdout, all else to stderr, colours only where they are wanted.

use super::world::{FAILED, World, recache, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_colour_in_a_pipe_unless_it_is_asked_for() {
    let world = World::sqlite().await;
    let plain = world.run(&["job", "list"]).expect(0);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
    let coloured = world.run(&["job", "list", "--color", "always"]).expect(0);
    assert!(coloured.contains("\u{1b}["), "{coloured:?}");
    let never = world.run(&["job", "list", "--color", "never"]).expect(0);
    assert_eq!(never, plain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_text_cannot_reach_the_terminal() {
    let world = World::sqlite().await;
    let shown = world.run(&["job", "show", FAILED]).expect(0);
    assert!(shown.contains("connection refused\\u{1b}[31m") && !shown.contains('\u{1b}'), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debug_log_goes_to_stderr_alone() {
    let world = World::sqlite().await;
    let loud = world.run(&["job", "list", "-vv", "-o", "json"]);
    let calm = world.run(&["job", "list", "-o", "json"]);
    assert_eq!(calm.err, "");
    assert!(loud.err.contains("database opened"), "{loud:?}");
    assert_eq!(loud.expect(0), calm.expect(0));
}

/// A full disk must not look like success to a script.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_cannot_be_written_is_an_error() {
    let world = World::sqlite().await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let command = world.command(&["job", "list", "-o", "json"]);
    let mut process = std::process::Command::new(command.get_program());
    process.args(command.get_args()).stdout(full);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => process.env(name, value),
            None => process.env_remove(name),
        };
    }
    let output = process.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("E-OUTPUT"), "{said}");
}

#[test]
fn help_and_version_go_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    let help = run(recache(folder.path()).args(["job", "list", "--help"]));
    assert!(help.expect(0).contains("recache job list --state failed"));
    let version = run(recache(folder.path()).arg("--version")).expect(0);
    assert_eq!(version, format!("recache {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_name_the_verbs() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(recache(folder.path()).args(["completions", shell])).expect(0);
        for verb in ["migrate", "doctor", "touch", "retry"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    run(recache(folder.path()).args(["completions", "cmd"])).refused(2, &["possible values"]);
}
