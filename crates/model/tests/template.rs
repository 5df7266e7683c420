//! Templates that are right, templates that are wrong, and templates that mean harm.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test says what it expects"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use recache_model::template::{BackoffSpec, Problems, RetrySpec, SettingProblem, Template, limits};

fn templates(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates").join(folder)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn good(file: &str) -> Template {
    let path = templates("good").join(file);
    Template::parse(&read(&path), file).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(source: &str) -> Problems {
    Template::parse(source, "t.yaml").expect_err("this template is wrong")
}

fn codes(problems: &Problems) -> Vec<&'static str> {
    problems.items().iter().map(|problem| problem.code).collect()
}

/// A template with the one step that `fields` describes, each line of it indented as a step's field.
fn with_step(fields: &str) -> String {
    format!("name: x\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: {{ callable: h }}\n{fields}")
}

#[test]
fn every_field_is_read() {
    let template = good("catalogue.yaml");
    assert_eq!(template.name(), "catalogue_refresh");
    assert_eq!(template.namespace(), "shop");
    assert_eq!(template.version().to_string(), "1.10.0-rc.1");
    assert_eq!(template.description(), Some("Reads the catalogue, prices it and publishes it. 🙂"));
    assert_eq!(template.metadata()["1"], "key that looks like a number");
    assert_eq!(template.metadata()["sla"]["ratio"], 0.75);
    let names: Vec<_> = template.steps().iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["fetch", "price", "check", "publish"]);

    let [fetch, price, check, publish] = template.steps() else { panic!("four steps") };
    assert_eq!(fetch.description.as_deref(), Some("Reads the supplier's list"));
    let handler = fetch.handler.as_ref().unwrap();
    assert_eq!(handler.callable, "catalogue.fetch");
    assert_eq!(handler.initialization["big"], u64::MAX);
    assert_eq!(handler.initialization["nested"]["list"][1][1][0], 3);
    assert!(fetch.dependencies.is_empty());
    let retry = RetrySpec {
        retryable: true,
        max_attempts: 5,
        backoff: BackoffSpec::Linear,
        backoff_base_ms: 500,
        max_backoff_ms: 60_000,
        jitter: 0.25,
    };
    assert_eq!(fetch.retry, retry);
    assert_eq!(fetch.timeout, Some(Duration::from_secs(30)));
    assert_eq!(fetch.queue.as_deref(), Some("io"));
    assert_eq!(fetch.priority, 10);
    assert_eq!(price.timeout, Some(Duration::from_millis(500)));
    assert_eq!(price.retry.backoff, BackoffSpec::None);
    assert_eq!(check.priority, -100);
    assert_eq!(publish.dependencies, ["price", "check"]);

    let graph = template.graph();
    assert_eq!(graph.levels(), [vec![0], vec![1, 2], vec![3]]);
}

#[test]
fn what_is_not_given_has_the_documented_default() {
    let template = good("minimal.yaml");
    assert_eq!(template.namespace(), "default");
    assert_eq!(template.description(), None);
    assert!(template.metadata().is_empty());
    let [step] = template.steps() else { panic!("one step") };
    let retry = RetrySpec {
        retryable: true,
        max_attempts: 3,
        backoff: BackoffSpec::Exponential,
        backoff_base_ms: 1_000,
        max_backoff_ms: 300_000,
        jitter: 0.1,
    };
    assert_eq!(step.retry, retry);
    assert_eq!(RetrySpec::default(), retry);
    assert_eq!((step.timeout, step.queue.as_deref(), step.priority), (None, None, 0));
    assert!(step.handler.as_ref().unwrap().initialization.is_empty());
}

#[test]
fn one_meaning_has_one_digest_however_it_is_written() {
    for group in [
        &["catalogue.yaml", "catalogue_aliases.yaml", "catalogue.json"][..],
        &["minimal.yaml", "minimal.json"][..],
    ] {
        let first = good(group[0]);
        for other in &group[1..] {
            let other = good(other);
            assert_eq!(first.canonical_json(), other.canonical_json());
            assert_eq!(first.digest(), other.digest());
            assert_eq!(first, other);
        }
    }
}

#[test]
fn canonical_form_of_the_minimal_template_stays_what_it_is() {
    // Stored digests rest on this text. A change here is a change of format.
    let template = good("minimal.yaml");
    let expected = concat!(
        r#"{"metadata":{},"name":"minimal","namespace_name":"default","steps":[{"dependencies":[],"#,
        r#""handler":{"callable":"noop","initialization":{}},"name":"only","priority":0,"#,
        r#""retry":{"backoff":"exponential","backoff_base_ms":1000,"jitter":0.1,"max_attempts":3,"#,
        r#""max_backoff_ms":300000,"retryable":true},"type":"standard"}],"version":"0.1.0"}"#,
    );
    assert_eq!(template.canonical_json(), expected);
    let digest = template.digest();
    assert_eq!(digest.to_string(), blake3::hash(expected.as_bytes()).to_hex().to_string());
    assert_eq!(digest.as_bytes(), blake3::hash(expected.as_bytes()).as_bytes());
}

#[test]
fn a_pinned_template_reads_back_equal() {
    for file in ["minimal.yaml", "catalogue.yaml", "catalogue_aliases.yaml", "catalogue.json"] {
        let template = good(file);
        let back = Template::from_canonical_json(template.canonical_json()).unwrap();
        assert_eq!(back, template);
        assert_eq!(back.digest(), template.digest());
        assert_eq!(back.graph(), template.graph());
    }
}

#[test]
fn every_change_of_meaning_changes_the_digest() {
    let base = with_step("");
    let digest = |source: &str| Template::parse(source, "t.yaml").unwrap_or_else(|e| panic!("{e}")).digest();
    let mut digests = BTreeSet::from([digest(&base)]);
    let changes = [
        base.replace("name: x", "name: y"),
        base.replace("1.0.0", "1.0.1"),
        base.replace("callable: h", "callable: i"),
        base.replace("name: a", "name: b"),
        base.replace("name: x", "name: x\nnamespace: n"),
        base.replace("name: x", "name: x\ndescription: d"),
        base.replace("name: x", "name: x\nmetadata: { a: 1 }"),
        base.replace("name: x", "name: x\nmetadata: { a: '1' }"),
        base.replace("callable: h", "callable: h, initialization: { a: 1 }"),
        with_step("    description: d\n"),
        with_step("    retry: { retryable: false }\n"),
        with_step("    retry: { max_attempts: 4 }\n"),
        with_step("    retry: { backoff: none }\n"),
        with_step("    retry: { backoff_base_ms: 1001 }\n"),
        with_step("    retry: { max_backoff_ms: 300001 }\n"),
        with_step("    retry: { jitter: 0.2 }\n"),
        with_step("    timeout_seconds: 1\n"),
        with_step("    timeout_seconds: 1.5\n"),
        with_step("    queue: q\n"),
        with_step("    priority: 1\n"),
        with_step("  - { name: b, handler: { callable: h } }\n"),
        with_step("  - { name: b, handler: { callable: h }, depends_on: [a] }\n"),
    ];
    for change in &changes {
        assert!(digests.insert(digest(change)), "{change}");
    }
}

#[test]
fn versions_order_as_versions_not_as_text() {
    let version = |text: &str| {
        let source = with_step("").replace("1.0.0", text);
        Template::parse(&source, "t.yaml").unwrap().version().clone()
    };
    assert!(version("0.10.0") > version("0.9.0"));
    assert!(version("1.0.0-rc.10") > version("1.0.0-rc.9"));
    assert!(version("1.0.0") > version("1.0.0-rc.10"));
}

#[test]
fn retry_values_of_every_spelling_mean_what_they_say() {
    let retry = |text: &str| {
        let source = with_step(&format!("    retry: {text}\n"));
        Template::parse(&source, "t.yaml").unwrap_or_else(|e| panic!("{e}")).steps()[0].retry.clone()
    };
    let default = RetrySpec::default();
    assert_eq!(retry("{}"), default);
    assert_eq!(retry(""), default);
    assert_eq!(retry("{ jitter: true }"), default);
    assert_eq!(retry("{ limit: 0 }"), RetrySpec { max_attempts: 1, ..default.clone() });
    assert_eq!(retry("{ initial_delay: 0.25 }"), RetrySpec { backoff_base_ms: 250, ..default.clone() });
    assert_eq!(retry("{ initial_delay: 0 }"), RetrySpec { backoff_base_ms: 0, ..default.clone() });
    assert_eq!(retry("{ max_delay: 7200 }"), RetrySpec { max_backoff_ms: 7_200_000, ..default.clone() });
    assert_eq!(retry("{ jitter: 1 }"), RetrySpec { jitter: 1.0, ..default.clone() });
    assert_eq!(retry("{ jitter: false }"), RetrySpec { jitter: 0.0, ..default.clone() });
    for backoff in BackoffSpec::ALL {
        assert_eq!(
            retry(&format!("{{ backoff: {} }}", backoff.word())),
            RetrySpec { backoff, ..default.clone() }
        );
    }
}

/// Each fixture says in its first lines what is wrong with it: `# expect: code line:column path`.
#[test]
fn every_kind_of_problem_is_found_at_its_place_and_nothing_else() {
    let mut seen = BTreeSet::new();
    let mut wrong = String::new();
    for entry in fs::read_dir(templates("bad")).unwrap() {
        let path = entry.unwrap().path();
        let source = read(&path);
        let expected: Vec<String> =
            source.lines().filter_map(|line| line.strip_prefix("# expect: ")).map(str::to_owned).collect();
        assert!(!expected.is_empty(), "{}", path.display());
        let problems = Template::parse(&source, "t.yaml").expect_err("a bad fixture is bad");
        let found: Vec<String> = problems
            .items()
            .iter()
            .map(|problem| {
                seen.insert(problem.code);
                let (line, column) = (problem.line.unwrap(), problem.column.unwrap());
                format!("{} {line}:{column} {}", problem.code, problem.path).trim_end().to_owned()
            })
            .collect();
        if found != expected {
            writeln!(wrong, "{}: expected {expected:#?}, found\n{problems}\n{found:#?}", path.display())
                .unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    let expected = BTreeSet::from([
        "bad_expression",
        "bad_key",
        "bad_merge",
        "bad_name",
        "bad_number",
        "bad_schema",
        "bad_tag",
        "bad_text",
        "bad_version",
        "batch_worker_without_batchable",
        "batchable_without_worker",
        "conflicting_fields",
        "convergence_over_nothing",
        "cycle",
        "decision_without_targets",
        "duplicate_dependency",
        "duplicate_event",
        "duplicate_key",
        "duplicate_step",
        "empty",
        "impossible_time",
        "missing_field",
        "no_steps",
        "out_of_range",
        "several_documents",
        "spelled_twice",
        "syntax",
        "unknown_anchor",
        "unknown_dependency",
        "unknown_field",
        "unknown_step",
        "unknown_value",
        "unreachable_target",
        "wrong_type",
    ]);
    assert_eq!(seen, expected, "each has a fixture; too_large, too_deep and too_many_steps are made below");
}

#[test]
fn problems_are_displayed_one_a_line_with_place_and_help() {
    let file = templates("bad_positions.json");
    let problems = Template::parse(&read(&file), "bad.json").unwrap_err();
    let expected = "\
bad.json:4:66: there is no step \"b\" to depend on (help: did you mean `a`?)
bad.json:5:14: two steps are named \"a\", first at line 4 (help: give each step a name of its own)
bad.json:5:30: the handler lacks `callable`
bad.json:5:31: the handler has no field \"callabel\" (help: did you mean `callable`?)
bad.json:5:61: `priority` must be from -100 to 100, found 1000";
    assert_eq!(problems.to_string(), expected);
    assert_eq!(problems.file(), "bad.json");
}

#[test]
fn a_cycle_names_all_its_steps() {
    let problems = Template::parse(&read(&templates("bad/cycle.yaml")), "t.yaml").unwrap_err();
    let messages: Vec<_> = problems.items().iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            r#"steps depend on each other in a circle: "a" -> "c" -> "b" -> "a""#,
            r#"the step "narcissus" depends on itself"#
        ]
    );
}

#[test]
fn a_problem_repeats_somebodys_text_shortened_and_without_control_characters() {
    let source = with_step(&format!("    \"\\e[31m{}\": 1\n", "x".repeat(900)));
    let problems = problems(&source);
    assert_eq!(codes(&problems), ["unknown_field"]);
    let message = &problems.items()[0].message;
    assert!(message.len() < 200, "{message}");
    assert!(!message.contains('\u{1b}'), "{message}");
}

#[test]
fn handlers_that_nobody_registered_are_found_at_their_place() {
    let template = good("catalogue.yaml");
    let known = ["catalogue.fetch", "Catalogue::Price", "catalogue.check", "catalogue.publish"];
    assert_eq!(template.check_handlers(&known), Ok(()));

    let problems = template.check_handlers(&["catalogue.fetsh", "Catalogue::Price", "other"]).unwrap_err();
    let found: Vec<_> = problems
        .items()
        .iter()
        .map(|problem| (problem.line, problem.column, problem.path.as_str(), problem.suggestion.as_deref()))
        .collect();
    assert_eq!(
        found,
        [
            (Some(17), Some(17), "/steps/0/handler/callable", Some("did you mean `catalogue.fetsh`?")),
            (Some(41), Some(26), "/steps/2/handler/callable", None),
            (Some(45), Some(26), "/steps/3/handler/callable", None),
        ]
    );
    assert_eq!(codes(&problems), ["unknown_handler"; 3]);
    assert!(problems.to_string().starts_with("catalogue.yaml:17:17: step fetch names the handler"));

    let pinned = Template::from_canonical_json(template.canonical_json()).unwrap();
    let problems = pinned.check_handlers(&known[1..]).unwrap_err();
    assert_eq!(problems.items().len(), 1);
    assert_eq!((problems.items()[0].line, problems.items()[0].column), (None, None));
    assert!(
        problems.to_string().starts_with("canonical form:/steps/0/handler/callable: step fetch"),
        "{problems}"
    );
}

#[test]
fn publishers_that_nobody_registered_are_found_at_their_place() {
    let template = good("whole.yaml");
    assert_eq!(template.check_publishers(&["orders.publisher"]), Ok(()));
    let problems = template.check_publishers(&["orders.publish"]).unwrap_err();
    assert_eq!(codes(&problems), ["unknown_publisher"]);
    let problem = &problems.items()[0];
    assert_eq!((problem.line, problem.column), (Some(58), Some(9)));
    assert_eq!(problem.path, "/steps/0/publishes_events/1/publisher");
    assert_eq!(problem.suggestion.as_deref(), Some("did you mean `orders.publish`?"));
    let said = "the event order.refused of step check names the publisher";
    assert!(problem.message.starts_with(said), "{}", problem.message);
}

#[test]
fn problems_of_a_canonical_form_have_paths() {
    let pinned = good("minimal.yaml").canonical_json().replace("\"priority\":0", "\"priority\":1000");
    let problems = Template::from_canonical_json(&pinned).unwrap_err();
    assert_eq!(codes(&problems), ["out_of_range"]);
    assert_eq!(problems.items()[0].path, "/steps/0/priority");

    let twice =
        good("minimal.yaml").canonical_json().replace("\"priority\":0", "\"priority\":0,\"priority\":0");
    assert_eq!(codes(&Template::from_canonical_json(&twice).unwrap_err()), ["syntax"]);
    let trailing = format!("{} x", good("minimal.yaml").canonical_json());
    assert_eq!(codes(&Template::from_canonical_json(&trailing).unwrap_err()), ["syntax"]);
    let deep = "[".repeat(100_000);
    assert_eq!(codes(&Template::from_canonical_json(&deep).unwrap_err()), ["syntax"]);
    let long = " ".repeat(limits::CANONICAL_BYTES_MAX + 1);
    assert_eq!(codes(&Template::from_canonical_json(&long).unwrap_err()), ["too_large"]);
}

#[test]
fn deep_nesting_is_refused_without_overflowing() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
        let source = format!("{}{}", open.repeat(5_000), close.repeat(5_000));
        let problems = problems(&source);
        assert_eq!(codes(&problems), ["too_deep"], "{open}: {problems}");
        assert!(problems.items()[0].line.is_some());
    }
    let only_open = problems(&"[".repeat(5_000));
    assert_eq!(codes(&only_open), ["too_deep"]);
    // Indentation: 300 levels, each one deeper than the last.
    let mut stairs = String::new();
    for level in 0..300 {
        writeln!(stairs, "{}a:", " ".repeat(level)).unwrap();
    }
    assert_eq!(codes(&problems(&stairs)), ["too_deep"]);
}

#[test]
fn nesting_up_to_the_limit_is_kept_and_reads_back() {
    // The document, `metadata` and then lists.
    let lists = limits::NESTING_MAX - 2;
    let source = |lists: usize| {
        with_step("").replace(
            "name: x",
            &format!("name: x\nmetadata: {{ deep: {}{} }}", "[".repeat(lists), "]".repeat(lists)),
        )
    };
    let template = Template::parse(&source(lists), "t.yaml").unwrap();
    assert_eq!(Template::from_canonical_json(template.canonical_json()).unwrap(), template);
    assert_eq!(codes(&problems(&source(lists + 1))), ["too_deep"]);
}

#[test]
fn aliases_cannot_nest_deeper_than_text_can() {
    let mut source = String::from("name: x\nversion: 1.0.0\nmetadata:\n  l0: &l0 []\n");
    for level in 1..100 {
        writeln!(source, "  l{level}: &l{level} [*l{}]", level - 1).unwrap();
    }
    let problems = problems(&source);
    assert_eq!(codes(&problems), ["too_deep"]);
    assert_eq!(problems.items()[0].line, Some(4 + u32::try_from(limits::NESTING_MAX).unwrap()));
}

#[test]
fn billion_laughs_are_stopped() {
    let mut lists = String::from("name: x\nversion: 1.0.0\nmetadata:\n  l0: &l0 lol\n");
    let mut merges = String::from("name: x\nversion: 1.0.0\nmetadata:\n  l0: &l0 { a: b }\n");
    for level in 1..30 {
        let below = vec![format!("*l{}", level - 1); 10].join(", ");
        writeln!(lists, "  l{level}: &l{level} [{below}]").unwrap();
        let fields: Vec<_> = (0..10).map(|field| format!("f{field}: *l{}", level - 1)).collect();
        writeln!(merges, "  l{level}: &l{level} {{ {} }}", fields.join(", ")).unwrap();
    }
    for bomb in [lists, merges] {
        let problems = problems(&bomb);
        assert_eq!(codes(&problems), ["too_large"]);
        // 10 to the sixth is the first power of ten above the limit, at the sixth level or just below.
        assert!(matches!(problems.items()[0].line, Some(9 | 10)), "{problems}");
    }
}

#[test]
fn long_text_cannot_be_multiplied_by_aliases() {
    let text = "x".repeat(100_000);
    let aliases = vec!["*t"; 1_000].join(", ");
    let values =
        with_step("").replace("name: x", &format!("name: x\nmetadata: {{ t: &t {text}, all: [{aliases}] }}"));
    assert_eq!(codes(&problems(&values)), ["too_large"]);

    let key = "k".repeat(1_000);
    let merges = "{ <<: *m }, ".repeat(10_000);
    let keys = with_step("")
        .replace("name: x", &format!("name: x\nmetadata: {{ m: &m {{ {key}: 1 }}, all: [{merges}] }}"));
    assert_eq!(codes(&problems(&keys)), ["too_large"]);

    let names = "{ *n : 1 }, ".repeat(10_000);
    let names =
        with_step("").replace("name: x", &format!("name: x\nmetadata: {{ n: &n {key}, all: [{names}] }}"));
    assert_eq!(codes(&problems(&names)), ["too_large"]);
}

#[test]
fn an_alias_may_stand_for_a_key() {
    let source = with_step("").replace("name: x", "name: x\nmetadata: { n: &n key, all: { *n : 1 } }");
    let template = Template::parse(&source, "t.yaml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(template.metadata()["all"]["key"], 1);
}

#[test]
fn merge_keys_yield_to_the_objects_own_fields_and_to_earlier_ones() {
    let source = with_step("").replace(
        "name: x",
        "name: x\nmetadata:\n  a: &a { x: 1, y: 1, z: 1 }\n  b: &b { y: 2, w: 2 }\n  \
         c: { <<: [*b, *a], x: 3 }",
    );
    let template = Template::parse(&source, "t.yaml").unwrap_or_else(|e| panic!("{e}"));
    let merged = &template.metadata()["c"];
    assert_eq!(merged, &serde_json::json!({ "w": 2, "x": 3, "y": 2, "z": 1 }));
}

#[test]
fn sources_and_step_lists_beyond_their_bounds_are_refused() {
    let padded = |bytes: usize| {
        let source = with_step("");
        format!("{source}{}", " ".repeat(bytes - source.len()))
    };
    assert!(Template::parse(&padded(limits::SOURCE_BYTES_MAX), "t.yaml").is_ok());
    assert_eq!(codes(&problems(&padded(limits::SOURCE_BYTES_MAX + 1))), ["too_large"]);

    let steps = |count: usize| {
        let mut source = String::from("name: x\nversion: 1.0.0\nsteps:\n");
        for step in 0..count {
            writeln!(source, "- {{ name: s{step}, handler: {{ callable: h }} }}").unwrap();
        }
        source
    };
    let full = Template::parse(&steps(limits::STEPS_MAX), "t.yaml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(full.steps().len(), limits::STEPS_MAX);
    let problems = problems(&steps(limits::STEPS_MAX + 1));
    assert_eq!(codes(&problems), ["too_many_steps"]);
    assert_eq!((problems.items()[0].line, problems.items()[0].column), (Some(4), Some(1)));
}

#[test]
fn what_would_be_pinned_is_bounded_too() {
    // Control characters take six bytes each in JSON.
    let source = with_step(&format!("    description: \"{}\"\n", "\\a".repeat(50_000)));
    assert!(Template::parse(&source, "t.yaml").is_ok());
    let text = "\\a".repeat(60_000);
    let aliases = vec!["*t"; 60].join(", ");
    let source = with_step("")
        .replace("name: x", &format!("name: x\nmetadata: {{ t: &t \"{text}\", all: [{aliases}] }}"));
    assert_eq!(codes(&problems(&source)), ["too_large"]);
}

#[test]
fn endless_problems_are_counted_not_listed() {
    let mut source = String::from("name: x\nversion: 1.0.0\nsteps:\n");
    for step in 0..5_000 {
        writeln!(source, "- {{ name: step_{step}, handler: {{ callable: h }}, depends_on: [stop_{step}] }}")
            .unwrap();
    }
    let problems = problems(&source);
    assert_eq!(problems.items().len(), limits::PROBLEMS_MAX);
    assert_eq!(problems.unlisted(), 5_000 - limits::PROBLEMS_MAX);
    assert!(problems.to_string().ends_with("t.yaml: and 4000 more"));
}

#[test]
fn characters_that_json_allows_survive_the_pin() {
    let odd = "del \\u007f, nel \\u0085, separators \\u2028 \\u2029, bom \\ufeff, last \\uffff, quote \\\", 🙂 \\ud83d\\ude42";
    let source = with_step(&format!("    description: \"{odd}\"\n"));
    let template = Template::parse(&source, "t.yaml").unwrap_or_else(|e| panic!("{e}"));
    let description = template.steps()[0].description.as_deref().unwrap();
    assert_eq!(
        description,
        "del \u{7f}, nel \u{85}, separators \u{2028} \u{2029}, bom \u{feff}, last \u{ffff}, quote \", 🙂 🙂"
    );
    assert_eq!(Template::from_canonical_json(template.canonical_json()).unwrap(), template);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_not_move_positions() {
    let source = with_step("    priority: 1000\n");
    let windows = format!("\u{feff}{}", source.replace('\n', "\r\n"));
    for source in [source, windows] {
        let problems = problems(&source);
        assert_eq!(codes(&problems), ["out_of_range"]);
        assert_eq!((problems.items()[0].line, problems.items()[0].column), (Some(6), Some(15)));
    }
}

#[test]
fn columns_count_characters_not_bytes() {
    let problems = problems("name: x\nversion: 1.0.0\nmetadata: { é: 'ü🙂', é: 1 }\nsteps: 1\n");
    let places: Vec<_> = problems.items().iter().map(|p| (p.code, p.line, p.column)).collect();
    assert_eq!(places, [("duplicate_key", Some(3), Some(22)), ("wrong_type", Some(4), Some(8))]);
}

#[test]
fn problems_of_settings_stand_where_the_setting_or_the_handler_does() {
    let source = with_step("    description: x\n").replace(
        "steps:\n",
        "steps:\n  - name: first\n    handler:\n      callable: h\n      initialization: { a: 1, \"b/c\": 2 }\n",
    );
    let template = Template::parse(&source, "t.yaml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(template.check_settings(|_| Vec::new()), Ok(()));
    let found = |setting: Option<&str>| SettingProblem {
        setting: setting.map(str::to_owned),
        message: "no".to_owned(),
        suggestion: None,
    };
    let check = |template: &Template| {
        let problems = template.check_settings(|step| match step.name.as_str() {
            "first" => vec![found(Some("b/c")), found(None), found(Some("gone"))],
            _ => Vec::new(),
        });
        let problems = problems.unwrap_err();
        assert_eq!(codes(&problems), ["bad_setting"; 3]);
        let mut places: Vec<_> =
            problems.items().iter().map(|p| (p.line, p.column, p.path.clone())).collect();
        places.sort();
        places
    };
    let path = |end: &str| format!("/steps/0/handler/initialization{end}");
    let line = source.lines().position(|line| line.contains("callable: h")).unwrap() + 1;
    let line = u32::try_from(line).unwrap();
    assert_eq!(
        check(&template),
        [
            (Some(line), Some(17), path("")),
            (Some(line), Some(17), path("/gone")),
            (Some(line + 1), Some(31), path("/b~1c")),
        ]
    );
    let pinned = Template::from_canonical_json(template.canonical_json()).unwrap();
    assert!(check(&pinned).iter().all(|(line, column, _)| line.is_none() && column.is_none()));
}
