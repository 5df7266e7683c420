//! Templates that mean harm: whatever is written, checking and running it ends soon and cleanly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test says what it expects, and these measure time"
)]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use recache_model::template::{Expression, Problems, Scope, Template, limits};
use serde_json::{Map, Value, json};

/// A whole test may take this long on a slow, busy machine in a debug build; what is meant to be stopped would take
/// ages, or the process.
const SOON: Duration = Duration::from_secs(20);

fn soon<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    let taken = start.elapsed();
    assert!(taken < SOON, "{what} took {taken:?}");
    result
}

fn with_schema(schema: &Value) -> Result<Template, Problems> {
    let source = json!({
        "name": "x", "version": "1.0.0", "input_schema": schema,
        "steps": [{ "name": "a", "handler": { "callable": "h" } }],
    });
    Template::parse(&source.to_string(), "t.json")
}

#[track_caller]
fn refused(schema: &Value, reason: &str) {
    let problems = soon(reason, || with_schema(schema)).expect_err(reason);
    let told = problems.to_string();
    assert!(told.contains(reason), "{told}");
    assert!(problems.items().iter().all(|problem| problem.code == "bad_schema"), "{told}");
}

#[test]
fn schema_that_contains_itself_is_refused() {
    refused(&json!({ "$ref": "#" }), "contains itself");
    refused(&json!({ "allOf": [{ "$ref": "#" }] }), "contains itself");
    refused(&json!({ "properties": { "a": { "$ref": "#" } } }), "contains itself");
    refused(
        &json!({
            "$ref": "#/$defs/a",
            "$defs": { "a": { "items": { "$ref": "#/$defs/b" } }, "b": { "not": { "$ref": "#/$defs/a" } } },
        }),
        "contains itself",
    );
}

#[test]
fn schema_that_doubles_with_every_line_is_refused() {
    let mut definitions = Map::new();
    definitions.insert("d0".to_owned(), json!({ "type": "object" }));
    for level in 1..20 {
        let below = json!({ "$ref": format!("#/$defs/d{}", level - 1) });
        definitions.insert(format!("d{level}"), json!({ "allOf": [below, below] }));
    }
    refused(&json!({ "$ref": "#/$defs/d19", "$defs": definitions }), "keywords, the limit is");
    // Nobody refers to them: they cost nothing.
    assert!(with_schema(&json!({ "$defs": definitions })).is_ok());
}

#[test]
fn deep_schema_is_refused() {
    let mut deep = json!({ "type": "object" });
    for _ in 0..50 {
        deep = json!({ "not": deep });
    }
    refused(&deep, "deep");
    // By references, each of them shallow.
    let mut definitions = Map::new();
    definitions.insert("d0".to_owned(), json!({}));
    for level in 1..200 {
        definitions
            .insert(format!("d{level}"), json!({ "not": { "$ref": format!("#/$defs/d{}", level - 1) } }));
    }
    refused(&json!({ "$ref": "#/$defs/d199", "$defs": definitions }), "deep");
}

#[test]
fn schema_that_leads_elsewhere_is_refused() {
    for reference in
        ["https://example.com/s.json", "other.json", "#name", "file:///etc/passwd", "#/%24defs/a"]
    {
        let problems = with_schema(&json!({ "$ref": reference, "$defs": { "a": {} } })).unwrap_err();
        assert_eq!(problems.items()[0].path, "/input_schema/$ref", "{problems}");
    }
    refused(&json!({ "$ref": "#/$defs/gone" }), "leads to nothing");
    refused(&json!({ "$dynamicRef": "#a" }), "is not supported");
    refused(&json!({ "properties": { "a": { "$id": "https://example.com/" } } }), "is not supported");
    assert!(
        with_schema(
            &json!({ "$id": "https://example.com/order.json", "$ref": "#/$defs/a", "$defs": { "a": {} } })
        )
        .is_ok()
    );
}

#[test]
fn patterns_are_linear_and_bounded() {
    let template = with_schema(&json!({ "pattern": "^(a+)+$" })).unwrap();
    let text = format!("{}b", "a".repeat(100_000));
    soon("a backtracking pattern", || assert!(template.check_input(&json!(text)).is_err()));
    refused(&json!({ "pattern": "(?:(?:a{500}){500}){500}" }), "cannot be used");
    refused(&json!({ "pattern": "(" }), "cannot be used");
    refused(&json!({ "pattern": "(?=a)" }), "cannot be used");
    refused(&json!({ "pattern": "a".repeat(limits::SCHEMA_PATTERN_BYTES_MAX + 1) }), "bytes, the limit is");
    let properties: Map<String, Value> = (0..=limits::SCHEMAS_PATTERNS_MAX)
        .map(|index| (format!("p{index}"), json!({ "pattern": "(?:[a-z]{100}){20}" })))
        .collect();
    refused(&json!({ "properties": properties }), "patterns or more");
    // As many heavy ones as there may be, in a draft whose own schema looks at them too.
    for draft in ["http://json-schema.org/draft-07/schema", "https://json-schema.org/draft/2020-12/schema"] {
        let properties: Map<String, Value> = (0..limits::SCHEMAS_PATTERNS_MAX - 1)
            .map(|index| (format!("p{index}"), json!({ "pattern": format!("(?:[a-z]{{90}}){{10}}{index}") })))
            .collect();
        soon("many heavy patterns", || {
            with_schema(&json!({ "$schema": draft, "properties": properties })).ok()
        });
    }
}

#[test]
fn schemas_multiplied_by_aliases_share_one_budget() {
    let mut source = String::from("name: x\nversion: 1.0.0\nsteps:\n");
    source.push_str("- name: s0\n  handler: { callable: h }\n  result_schema: &s { properties: {");
    for index in 0..500 {
        write!(source, " p{index}: {{ type: string }},").unwrap();
    }
    source.push_str("} }\n");
    for index in 1..300 {
        writeln!(source, "- {{ name: s{index}, handler: {{ callable: h }}, result_schema: *s }}").unwrap();
    }
    let problems = soon("schemas by aliases", || Template::parse(&source, "t.yaml")).unwrap_err();
    assert!(problems.to_string().contains("parts together"), "{problems}");
}

#[test]
fn input_too_large_for_its_schema_is_refused_unchecked() {
    let checks: Vec<Value> =
        (0..1_000).map(|index| json!({ "items": { "not": { "const": index } } })).collect();
    let template = with_schema(&json!({ "allOf": checks })).unwrap();
    let input = json!(vec![-1; 200_000]);
    let mismatches = soon("a large input", || template.check_input(&input)).unwrap_err();
    assert!(mismatches.to_string().contains("too large for its schema"), "{mismatches}");
    // Just below the limit: 7,001 keywords for each of 7,000 values.
    assert!(soon("an input at the limit", || template.check_input(&json!(vec![-1; 7_000]))).is_ok());
}

/// Such a keyword looks again at what its neighbours have looked at, and so do those within them.
#[test]
fn nested_unevaluated_keywords_do_not_multiply() {
    for keyword in ["unevaluatedProperties", "unevaluatedItems"] {
        let nested = |nesting: usize| {
            let mut schema = json!({ keyword: { "type": "integer" } });
            for _ in 0..nesting {
                schema = json!({ "allOf": [schema], keyword: { "type": "integer" } });
            }
            schema
        };
        for nesting in [1, 4, 10] {
            let template = with_schema(&nested(nesting)).unwrap_or_else(|problems| panic!("{problems}"));
            for input in [json!({ "a": 1, "b": 2 }), json!([1, 2, 3])] {
                assert!(soon(keyword, || template.check_input(&input)).is_ok());
            }
        }
        refused(&nested(22), "keywords, the limit is");
    }
}

fn scope_of<'a>(input: &'a Value, results: &'a Map<String, Value>) -> Scope<'a> {
    Scope { input, results, item: None, index: None }
}

/// Compiles and evaluates on the small stack that a server's threads have.
fn try_expression(source: String) {
    let work = move || {
        let Ok(expression) = Expression::compile(&source) else { return };
        let input = json!({ "a": [1, 2, 3], "s": "text", "n": 5, "o": { "a": { "a": 1 } } });
        let results = Map::new();
        let _ = expression.evaluate(&scope_of(&input, &results));
        let mut again = source.clone();
        again.insert(0, ' ');
        let _ = Expression::compile(&again);
    };
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap().join().unwrap();
}

#[test]
fn no_expression_takes_the_process_down() {
    let fill = |open: &str, middle: &str, close: &str| {
        let times = (limits::EXPRESSION_BYTES_MAX - middle.len()) / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(times), close.repeat(times))
    };
    let hostile = [
        fill("(", "1", ")"),
        fill("[", "1", "]"),
        fill("{1:", "1", "}"),
        fill("(", "", ""),
        fill("[", "", ""),
        fill("{", "", ""),
        fill("not ", "1", ""),
        fill("-", "1", ""),
        fill("1+", "1", ""),
        fill("1-", "1", ""),
        fill("1~", "1", ""),
        fill("1**", "1", ""),
        fill("1<", "1", ""),
        fill("1==", "1", ""),
        fill("1 in ", "1", ""),
        fill("1 and ", "1", ""),
        fill("1 or ", "1", ""),
        fill("1 if 1 else ", "1", ""),
        fill("", "input", ".a"),
        fill("", "input", "[1]"),
        fill("", "input", "[1:]"),
        fill("", "input.a", "|last"),
        fill("", "input.a", "|default(1)"),
        fill("input[", "1", "]"),
        fill("input|default(", "1", ")"),
        format!("{}input{}", "(".repeat(32), ")[0]".repeat(32)),
        format!("{}1{}", "input[".repeat(32), "]".repeat(32)),
        format!("{}1{}", "{1:[-(not ".repeat(8), ")]}".repeat(8)),
        fill("(-[not ", "1", "])"),
        fill("", "1", " is none"),
        fill("", "1", " is not none"),
        fill("", "1", "()"),
        fill("'", "", "'"),
        fill("\\", "'", ""),
        fill("{{", "", "}}"),
        fill("{%", "", "%}"),
        "\"".to_owned(),
        "{# ".to_owned(),
        "\u{0}".to_owned(),
        "'é'|".to_owned(),
    ];
    soon("hostile expressions", || hostile.into_iter().for_each(try_expression));
}

#[test]
fn no_expression_takes_memory_or_time() {
    let input = json!({ "s": "x".repeat(1_000_000), "list": vec![1; 100_000] });
    let results = Map::new();
    for source in [
        "'x' * 3000000000",
        "[1] * 300000000",
        "10 ** 10 ** 10",
        "'x' * 100000 * 100000",
        "input.s * 1000",
        "(input.s * 100) | upper",
        "input.list * 1000",
        "input.s ~ input.s ~ input.s ~ input.s ~ input.s ~ input.s ~ input.s ~ input.s",
        "((((((((input.s|upper|lower)|upper|lower)|upper|lower)|upper|lower)|upper|lower))))",
        "999999999999999999999999999999 ** 999999",
        "9 ** 9 ** 9",
        "1 / 0",
        "1 % 0",
        "-9223372036854775807 - 9223372036854775807",
        "170141183460469231731687303715884105727 + 1",
    ] {
        soon(source, || {
            let Ok(expression) = Expression::compile(source) else { return };
            let error = expression.evaluate(&scope_of(&input, &results));
            if let Ok(value) = error {
                assert!(value.to_string().len() < 2_000_000, "{source}");
            }
        });
    }
}

#[test]
fn an_expression_beyond_its_length_is_refused() {
    let long = "1".repeat(limits::EXPRESSION_BYTES_MAX);
    assert!(Expression::compile(&long).is_ok() || Expression::compile(&long).is_err());
    let error = Expression::compile(&format!("'{long}'")).unwrap_err();
    assert!(error.message.contains("bytes, the limit is 1024"), "{error}");
    for empty in ["", "  "] {
        assert_eq!(Expression::compile(empty).unwrap_err().message, "it is empty");
    }
}

#[test]
fn expressions_multiplied_by_aliases_are_counted() {
    let mut source = String::from("name: x\nversion: 1.0.0\nsteps:\n");
    source.push_str("- name: s0\n  handler: { callable: h }\n  cache: &c { inputs: [");
    source.push_str(&"input,".repeat(limits::CACHE_INPUTS_MAX));
    source.push_str("] }\n");
    for index in 1..1_000 {
        writeln!(source, "- {{ name: s{index}, handler: {{ callable: h }}, cache: *c }}").unwrap();
    }
    let problems = soon("expressions by aliases", || Template::parse(&source, "t.yaml")).unwrap_err();
    assert_eq!(problems.items().len(), 1, "{problems}");
    assert!(problems.to_string().contains("expressions"), "{problems}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_an_expression_panic(text in any::<String>()) {
        try_expression(text);
    }

    #[test]
    fn no_pieces_of_the_language_make_an_expression_panic(
        pieces in vec(select(vec![
            "input", ".a", ".o", "[0]", "[:2]", "|last", "|default(1)", "|length", " is defined", " is not none",
            " in ", " and ", " or ", "not ", "(", ")", "[", "]", "{", "}", ":", ",", "1", "'x'", "\"", "+", "-", "*",
            "**", "/", "//", "%", "~", "==", "<", " if ", " else ", "none", "true", "results", "é", "\\", "_",
        ]), 0..60),
    ) {
        try_expression(pieces.concat());
    }

    #[test]
    fn no_random_schema_panics_or_lasts(
        keywords in vec((select(vec![
            "type", "$ref", "allOf", "not", "properties", "items", "$defs", "pattern", "format", "enum", "required",
            "patternProperties", "if", "minimum", "uniqueItems", "const", "dependencies", "$schema", "$id",
        ]), select(vec![
            json!("string"), json!("#"), json!("#/$defs/a"), json!([{}, { "type": "x" }]), json!({ "a": { "$ref": "#/not" } }),
            json!({ "type": "object" }), json!(5), json!(null), json!(true), json!("^(a|b)+$"), json!("email"), json!([]),
            json!({ "a": { "items": { "$ref": "#/$defs/a" } } }), json!(["a", "b"]), json!("http://json-schema.org/draft-07/schema"),
        ])), 0..8),
    ) {
        let schema: Map<String, Value> =
            keywords.into_iter().map(|(keyword, value)| (keyword.to_owned(), value)).collect();
        if let Ok(template) = with_schema(&Value::Object(schema)) {
            for input in [json!(null), json!({ "a": ["b", {}] }), json!("aaaaaaaaaaaaaaaaaaab"), json!([1, [1], "x"])] {
                let _ = template.check_input(&input);
            }
        }
    }
}
