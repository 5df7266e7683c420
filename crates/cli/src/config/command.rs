//! `recache config check` and `recache config explain`, and how the file is found.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use miette::Severity;

use super::Config;
use super::environment::Environment;
use super::explain::{self, Output};
use super::load::{Flag, Loaded, load};
use super::problem::{Place, Problem, Style, short, write_all};
use super::schema::{self, Zone};
use super::source::SourceFile;
use crate::cli_error::{CliError, ExitStatus};

/// The arguments of `config check`.
#[derive(Debug, Clone)]
pub(crate) struct CheckArgs {
    /// `--config`
    pub(crate) config: Option<PathBuf>,
    /// The flags that set options.
    pub(crate) flags: Vec<Flag>,
    /// How problems are drawn.
    pub(crate) style: Style,
}

/// The arguments of `config explain`.
#[derive(Debug, Clone)]
pub(crate) struct ExplainArgs {
    /// `--config`
    pub(crate) config: Option<PathBuf>,
    /// The flags that set options.
    pub(crate) flags: Vec<Flag>,
    /// How problems are drawn.
    pub(crate) style: Style,
    /// `-o`
    pub(crate) output: Output,
    /// An option, or a section for all of its options.
    pub(crate) key: Option<String>,
}

/// Checks the configuration: 0 when all is well, 1 when anything at all is wrong, in the cache's sections too.
///
/// Problems go to `err`. Fails only when `out` or `err` cannot be written.
pub(crate) fn check(
    args: &CheckArgs,
    environment: &Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitStatus> {
    let loaded = load_file(args.config.as_deref(), environment, &args.flags);
    if loaded.is_clean() {
        let file = loaded.source.as_ref().map_or("no configuration file", |source| source.name.as_ref());
        writeln!(out, "{file}: no problems")?;
        return Ok(ExitStatus::Ok);
    }
    loaded.write_problems(args.style, Severity::Error, err)?;
    match loaded.problems.len() + loaded.warnings.len() {
        1 => writeln!(err, "1 problem")?,
        count => writeln!(err, "{count} problems")?,
    }
    Ok(ExitStatus::Failed)
}

/// Prints effective values with their origins to `out`: 0 when all is well, 1 when there are problems (they go to
/// `err`, and what they are about is shown with its default), 2 when `key` names nothing.
pub(crate) fn explain(
    args: &ExplainArgs,
    environment: &Environment,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitStatus> {
    let options = explain::chosen(args.key.as_deref());
    if let (Some(key), true) = (&args.key, options.is_empty()) {
        let error = CliError::new(
            "E-CONFIG-KEY",
            ExitStatus::Usage,
            format!("no option or section `{}`", short(key)),
        );
        let near = schema::nearest(key, schema::options().map(|option| option.path));
        let error = match near {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("run `recache config explain` for the list of options"),
        };
        error.write(err)?;
        return Ok(error.exit);
    }
    let loaded = load_file(args.config.as_deref(), environment, &args.flags);
    explain::write(&loaded, &Config::defaults(environment.cores), &options, args.output, out)?;
    loaded.write_problems(args.style, Severity::Error, err)?;
    Ok(if loaded.is_clean() { ExitStatus::Ok } else { ExitStatus::Failed })
}

impl Loaded {
    /// Shows every problem on `err`: those outside the cache's sections as errors, those inside as `cache_severity`
    /// (a start warns, a check fails).
    pub(crate) fn write_problems(
        &self,
        style: Style,
        cache_severity: Severity,
        err: &mut dyn Write,
    ) -> io::Result<()> {
        let source = self.source.as_ref();
        write_all(&self.problems, Severity::Error, source, style, err)?;
        write_all(&self.warnings, cache_severity, source, style, err)
    }
}

/// Finds the file and loads from it: `--config`, else `RECACHE_CONFIG`, else `recache.toml` in the working directory
/// if it is there, else none. A file that was named must be there.
pub(crate) fn load_file(config: Option<&Path>, environment: &Environment, flags: &[Flag]) -> Loaded {
    let named = config.map(Path::to_path_buf).or_else(|| {
        environment.variable("RECACHE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    let must_exist = named.is_some();
    let path = named.unwrap_or_else(|| PathBuf::from("recache.toml"));
    let name = path.display().to_string();
    match read(&environment.directory.join(&path)) {
        Ok(text) => load(Some(SourceFile::new(&name, text)), environment, flags),
        Err(error) if error.kind() == ErrorKind::NotFound && !must_exist => load(None, environment, flags),
        Err(error) => {
            let mut loaded = load(None, environment, flags);
            let place = Place::WholeFile(Arc::from(name));
            let problem = Problem {
                zone: Zone::Core,
                path: None,
                message: format!("cannot read the configuration file: {error}"),
                remedy: Some("check --config and RECACHE_CONFIG, and that the file can be read".to_owned()),
                place,
            };
            loaded.problems.insert(0, problem);
            loaded
        }
    }
}

/// The most that a configuration file may hold.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= FILE_BYTES_MAX) {
        Ok(text)
    } else {
        Err(io::Error::new(ErrorKind::FileTooLarge, format!("larger than {FILE_BYTES_MAX} bytes")))
    }
}
