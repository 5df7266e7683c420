//! The `http` handler against a tiny server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{code, one_step, result, run_text, text};

/// Answers the n-th request with the n-th answer, the last one again and again. Ends with the test's process.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn answering(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for (index, stream) in listener.incoming().enumerate() {
                let answer = &answers[index.min(answers.len() - 1)];
                seen.lock().unwrap().push(serve(stream.unwrap(), answer));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// One request on one connection; returns head and body.
fn serve(mut stream: TcpStream, answer: &str) -> String {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            break;
        }
    }
    let length = request
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    // The client may stop reading in the middle.
    let _ = stream.write_all(answer.as_bytes());
    request + &text(&body)
}

fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers = headers.iter().fold(String::new(), |all, header| all + header + "\r\n");
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Runs one request with the operator's leave to reach this machine.
fn request(settings: &Value, retry: &str) -> (i32, Value, String) {
    let output = run_text(&one_step("http", settings, retry), &["--allow-private-addresses"]);
    let told = text(&output.stderr);
    (code(&output), result(&output)["steps"]["only"].clone(), told)
}

const NO_PAUSE: &str = "    retry: { max_attempts: 2, backoff: none }\n";

#[test]
fn json_answer_becomes_the_result() {
    let body = r#"{"price": 3}"#;
    let server = Server::answering(vec![answer(
        "200 OK",
        &["content-type: application/json", "etag: \"7\"", "x-secret: hidden"],
        body,
    )]);
    let settings = json!({
        "url": format!("http://{}/prices?page=2", server.address), "method": "POST",
        "headers": { "x-key": "k" }, "body": { "n": 1 },
    });
    let (code, step, told) = request(&settings, "");
    assert_eq!(code, 0, "{told}");
    let headers = json!({ "content-type": "application/json", "etag": "\"7\"", "content-length": "12" });
    assert_eq!(step["output"], json!({ "status": 200, "headers": headers, "body": { "price": 3 } }));
    let request = server.requests().remove(0);
    assert!(request.starts_with("POST /prices?page=2 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("x-key: k\r\n") && request.ends_with("\r\n\r\n{\"n\":1}"), "{request}");
}

#[test]
fn text_answer_stays_text() {
    let server = Server::answering(vec![answer("200 OK", &["content-type: text/plain"], "123")]);
    let (code, step, told) = request(&json!({ "url": format!("http://{}/", server.address) }), "");
    assert_eq!((code, &step["output"]["body"]), (0, &json!("123")), "{told}");
}

#[test]
fn retry_after_is_honoured_then_it_succeeds() {
    for header in ["retry-after: 1", "retry-after: Sun, 06 Nov 1994 08:49:38 GMT"] {
        let date = "date: Sun, 06 Nov 1994 08:49:37 GMT";
        let server = Server::answering(vec![
            answer("429 Too Many Requests", &[header, date], ""),
            answer("200 OK", &[], "1"),
        ]);
        let settings = json!({ "url": format!("http://{}/", server.address) });
        let output = run_text(&one_step("http", &settings, NO_PAUSE), &["--allow-private-addresses"]);
        let told = text(&output.stderr);
        assert_eq!(code(&output), 0, "{told}");
        assert!(told.contains("answered 429 Too Many Requests (http_429); retry in 1."), "{told}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        let step = &result["steps"]["only"];
        assert!(step["queued_ms"].as_u64().unwrap() >= 1_000, "{step}");
        assert_eq!((&step["attempts"], &step["output"]["body"]), (&json!(2), &json!(1)));
    }
}

#[test]
fn errors_of_the_server_are_retried_and_those_of_the_client_are_not() {
    for (status, kind, attempts) in [
        ("404 Not Found", "permanent", 1),
        ("401 Unauthorized", "permanent", 1),
        ("500 Internal Server Error", "retryable", 2),
        ("408 Request Timeout", "retryable", 2),
        ("425 Too Early", "retryable", 2),
        ("503 Service Unavailable", "retryable", 2),
        ("422 Unprocessable Entity", "permanent", 1),
    ] {
        let server = Server::answering(vec![answer(status, &[], "")]);
        let settings = json!({ "url": format!("http://{}/a?token=hunter2", server.address) });
        let (code, step, told) = request(&settings, NO_PAUSE);
        assert_eq!((code, &step["attempts"]), (7, &json!(attempts)), "{status}: {told}");
        assert_eq!((&step["error"]["kind"], server.requests().len()), (&json!(kind), attempts), "{status}");
        assert_eq!(step["error"]["code"], format!("http_{}", &status[..3]));
        assert!(!told.contains("hunter2") && told.contains(status), "{told}");
    }
}

#[test]
fn refused_connection_is_retried() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, step, told) = request(&json!({ "url": format!("http://{free}/a?token=hunter2") }), NO_PAUSE);
    assert_eq!((code, &step["attempts"]), (7, &json!(2)), "{told}");
    assert_eq!(step["error"]["code"], "http_connect", "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn silent_server_meets_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings =
        json!({ "url": format!("http://{}/", listener.local_addr().unwrap()), "timeout_seconds": 0.1 });
    let (code, step, told) = request(&settings, NO_PAUSE);
    assert_eq!((code, &step["error"]["code"]), (7, &json!("http_timeout")), "{told}");
}

#[test]
fn private_addresses_are_refused_by_name_too() {
    let server = Server::answering(vec![answer("200 OK", &[], "1")]);
    let port = server.address.rsplit(':').next().unwrap();
    let settings = json!({ "url": format!("http://localhost:{port}/") });
    let output = run_text(&one_step("http", &settings, NO_PAUSE), &[]);
    let step = &result(&output)["steps"]["only"];
    assert_eq!((code(&output), &step["attempts"]), (7, &json!(1)), "{}", text(&output.stderr));
    assert_eq!(step["error"]["code"], "address_refused");
    assert!(text(&output.stderr).contains("--allow-private-addresses"), "{}", text(&output.stderr));
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[test]
fn redirects_are_followed_without_headers_for_another_server_and_not_for_ever() {
    let end = Server::answering(vec![answer("200 OK", &["content-type: application/json"], "[1]")]);
    let location = format!("location: http://{}/end", end.address);
    let start = Server::answering(vec![
        answer("302 Found", &["location: /next"], ""),
        answer("302 Found", &[&location], ""),
    ]);
    let settings = json!({
        "url": format!("http://{}/", start.address), "method": "POST", "body": "x",
        "headers": { "authorization": "Bearer k", "accept": "text/x" },
    });
    let (code, step, told) = request(&settings, NO_PAUSE);
    assert_eq!((code, &step["output"]["body"]), (0, &json!([1])), "{told}");
    let requests = start.requests();
    assert!(requests[1].starts_with("GET /next ") && requests[1].contains("Bearer k"), "{requests:?}");
    let last = end.requests().remove(0);
    assert!(last.contains("accept: text/x") && !last.contains("Bearer"), "{last}");

    let around = Server::answering(vec![answer("307 Temporary Redirect", &["location: /"], "")]);
    let (code, step, _) = request(&json!({ "url": format!("http://{}/", around.address) }), NO_PAUSE);
    assert_eq!((code, &step["error"]["code"], around.requests().len()), (7, &json!("too_many_redirects"), 6));
    let file = Server::answering(vec![answer("302 Found", &["location: file:///etc/passwd"], "")]);
    let (code, step, _) = request(&json!({ "url": format!("http://{}/", file.address) }), NO_PAUSE);
    assert_eq!((code, &step["error"]["code"]), (7, &json!("redirect_refused")));
}

#[test]
fn body_over_the_bound_is_refused_whether_announced_or_not() {
    let large = "x".repeat(1024 * 1024 + 1);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    for whole in [answer("200 OK", &[], &large), chunked] {
        let server = Server::answering(vec![whole]);
        let (code, step, told) = request(&json!({ "url": format!("http://{}/", server.address) }), NO_PAUSE);
        assert_eq!((code, &step["error"]["code"]), (7, &json!("http_body_too_large")), "{told}");
    }
}
