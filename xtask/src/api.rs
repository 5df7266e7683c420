//! `cargo xtask api`: schemathesis asks a server of its own everything that its OpenAPI description allows, and much that it does not.
//!
//! Every answer must be one that is described, and none may be the server's own failure. Afterwards the server must still live, and its log hold no error.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use crate::{Failure, find, process, workspace_root};

/// The version that the figures in the documentation were made with; another one may know other checks.
const VERSION: &str = "4.32.5";
const PROGRAM_VARIABLE: &str = "RECACHE_SCHEMATHESIS";
/// Unless told otherwise: a look. The long form is 300.
const EXAMPLES: u32 = 20;
const EXAMPLES_MAX: u32 = 100_000;
/// What is checked. What is left out says more of the tool than of the server: whether data that *it* thinks wrong was taken, and whether data
/// that it thinks right was; a description cannot say that a job must exist, or that two fields exclude each other.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
response_schema_conformance,unsupported_method,allow_header_conformance,use_after_free";
/// What the tool does, in its order; of these `fuzzing` and `stateful` take as long as there are examples.
const PHASES: [&str; 4] = ["examples", "coverage", "fuzzing", "stateful"];
/// Longer than a server takes to start on a busy machine.
const START_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    /// Of each operation and phase.
    examples: u32,
    seed: Option<u64>,
    /// Where the server keeps its data; a new SQLite file unless said.
    database: Option<String>,
    /// Only operations whose path this regular expression finds.
    only: Option<String>,
    /// Only these, so that a long run can be divided.
    phases: Option<String>,
}

impl Options {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self { examples: EXAMPLES, seed: None, database: None, only: None, phases: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("api: `{argument}` needs a value"));
            match argument.as_str() {
                "--examples" => {
                    let text = value()?;
                    let count = text.parse().ok().filter(|count| (1..=EXAMPLES_MAX).contains(count));
                    options.examples = count.ok_or_else(|| {
                        format!("api: `{text}` is no number of examples, 1 to {EXAMPLES_MAX}")
                    })?;
                }
                "--seed" => {
                    let text = value()?;
                    options.seed = Some(text.parse().map_err(|_| format!("api: `{text}` is no seed"))?);
                }
                "--database" => options.database = Some(value()?.clone()),
                "--only" => options.only = Some(value()?.clone()),
                "--phases" => {
                    let text = value()?;
                    if let Some(unknown) = text.split(',').find(|phase| !PHASES.contains(phase)) {
                        return Err(format!(
                            "api: `{unknown}` is no phase, but one of {}",
                            PHASES.join(", ")
                        ));
                    }
                    options.phases = Some(text.clone());
                }
                unknown => return Err(format!("api: unknown option `{unknown}`")),
            }
        }
        Ok(options)
    }

    fn arguments(&self, server: SocketAddr, config: &Path) -> Vec<String> {
        let mut arguments = vec![
            "--config-file".to_owned(),
            config.display().to_string(),
            "run".to_owned(),
            format!("http://{server}/v1/openapi.json"),
            format!("--max-examples={}", self.examples),
            format!("--checks={CHECKS}"),
            "--continue-on-failure".to_owned(),
            // A busy machine is no finding; a request that hangs is.
            "--request-timeout=60".to_owned(),
            "--suppress-health-check=all".to_owned(),
            "--workers=2".to_owned(),
        ];
        arguments.extend(self.seed.map(|seed| format!("--seed={seed}")));
        arguments.extend(self.phases.as_ref().map(|phases| format!("--phases={phases}")));
        arguments.extend(self.only.as_ref().map(|only| format!("--include-path-regex={only}")));
        arguments
    }
}

/// A stream of events ends by itself only when it is told to.
const CONFIG: &str = "[[operations]]\ninclude-path = \"/v1/events\"\nparameters = { seconds = 0 }\n";

pub(crate) fn run(options: &Options) -> Result<ExitCode, Failure> {
    let tool = tool()?;
    let build = process::status(process::cargo().args(["build", "--package", "recache-cli"]))?;
    if !build.success() {
        return Ok(ExitCode::FAILURE);
    }
    let folder = std::env::temp_dir().join(format!("recache-api-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(Failure::at("cannot make a folder"))?;
    let asked = Server::start(&folder, options.database.as_deref()).and_then(|mut server| {
        let config = folder.join("schemathesis.toml");
        fs::write(&config, CONFIG).map_err(Failure::at("cannot write the tool's configuration"))?;
        let status = process::status(
            Command::new(tool)
                .args(options.arguments(server.address, &config))
                .current_dir(&folder)
                .stdin(Stdio::null()),
        )?;
        Ok((status.success(), server.ended_by_itself(), server.complaints()))
    });
    let (is_good, has_ended, complaints) = asked?;
    if has_ended {
        eprintln!("xtask api: the server ended while it was asked");
    }
    for line in complaints.iter().take(20) {
        eprintln!("xtask api: the server's log: {line}");
    }
    let is_good = is_good && !has_ended && complaints.is_empty();
    if is_good {
        // Nothing to look at afterwards.
        let _ = fs::remove_dir_all(&folder);
    } else {
        eprintln!("xtask api: the server's data and log are in {}", folder.display());
    }
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tool() -> Result<PathBuf, Failure> {
    let named = std::env::var_os(PROGRAM_VARIABLE).filter(|named| !named.is_empty()).map(PathBuf::from);
    named.or_else(|| find::on_path("schemathesis")).filter(|path| find::is_executable(path)).ok_or_else(|| {
        Failure::new(format!(
            "schemathesis is not there; `python3 -m venv V && V/bin/pip install schemathesis=={VERSION}` brings it, and \
             {PROGRAM_VARIABLE}=V/bin/schemathesis says where"
        ))
    })
}

/// The server that is asked; it ends with this.
struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    fn start(folder: &Path, database: Option<&str>) -> Result<Self, Failure> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(Failure::at("there is no free port"))?;
        let log = folder.join("server.log");
        let file = fs::File::create(&log).map_err(Failure::at("cannot write a log"))?;
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace_root().join("target"), PathBuf::from);
        let child = Command::new(target.join("debug/recache"))
            .args(["serve", "--database", database.unwrap_or("sqlite:api.db")])
            .current_dir(folder)
            .env("RECACHE__SERVER__ADDRESS", address.to_string())
            .env("RECACHE__SERVER__REQUESTS_PER_SECOND_MAX", "1000000")
            // Waits are as good when they are short.
            .env("RECACHE__SERVER__WAIT_MAX_MS", "50")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(Failure::at("cannot start the server"))?;
        let server = Self { child, address, log };
        if process::wait_until(START_WITHIN, || server.answers()) {
            return Ok(server);
        }
        Err(Failure::new(format!("the server does not answer; its log: {}", server.log.display())))
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream
                .write_all(b"GET /health/ready HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.starts_with("HTTP/1.1 200"))
        };
        ask().unwrap_or(false)
    }

    fn ended_by_itself(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// What the log says that a request must not bring about.
    fn complaints(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("ERROR") || line.contains("panicked"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        Options::parse(&arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_reach_the_tool() {
        let options =
            parse(&["--examples", "300", "--seed", "7", "--only", "jobs", "--phases", "fuzzing,stateful"])
                .expect("options");
        let server = "127.0.0.1:1".parse().expect("an address");
        let arguments = options.arguments(server, Path::new("/c"));
        for wanted in [
            "--max-examples=300",
            "--seed=7",
            "--include-path-regex=jobs",
            "--phases=fuzzing,stateful",
            "http://127.0.0.1:1/v1/openapi.json",
        ] {
            assert!(arguments.iter().any(|one| one == wanted), "{arguments:?}");
        }
        assert_eq!(parse(&[]).expect("none").examples, EXAMPLES);
    }

    #[test]
    fn wrong_options_are_refused() {
        for wrong in [
            &["--examples"][..],
            &["--examples", "0"],
            &["--examples", "x"],
            &["--seed", "x"],
            &["--phases", "fuzzing,stateless"],
            &["--fast"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
