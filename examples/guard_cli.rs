//! What the guard makes of texts: JSON lines in, a verdict for each line out.
//!
//! ```sh
//! echo '{"text": "My card is 4111 1111 1111 1111."}' | cargo run --example guard_cli --features full
//! ```
//!
//! Each line runs through the layer itself, as a request to a server would, with the detectors and
//! the policy of the example `generate`, and with detectors that other servers run (`--tei`,
//! `--moderation`, `--llama-guard`, `--presidio`), or with policies from a file (`--policies`); as a prompt or as an
//! answer (`--answers`). Detection quality is measured with it.

#[path = "guard_cli/policies.rs"]
mod policies;
#[path = "guard_cli/remote.rs"]
mod remote;
#[path = "guard_cli/wire.rs"]
mod wire;

use std::{
    convert::Infallible,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use indicatif::{ProgressBar, ProgressStyle};
use palisade::{
    BoxError, Rejection, Stack,
    body::RequestBody,
    prompt_guard::{
        Action, AnswerVerdict, CodeRules, DetectorSet, FindingOutcome, InjectionRules, Outcome,
        PersonalData, PromptGuardLayer, RulePack, Secrets, Verdict,
    },
};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};

use crate::{
    policies::Policies,
    wire::{Says, Wire},
};

/// Reads JSON lines, `{"text": "…"}`, and writes a verdict for each.
#[derive(Debug, Parser)]
struct Config {
    /// The lines; standard input if there is none.
    file: Option<PathBuf>,

    /// Reads each line as the whole body of a request to this endpoint, or of an answer from it. The `text` of the
    /// verdict is then the body as it would reach the model, or the caller.
    #[arg(long, value_name = "ENDPOINT")]
    wire: Option<Wire>,

    /// Takes the findings of every detector as a reason to block or mask from this score on, from 0 to 1.
    #[arg(long, value_name = "SCORE", default_value = "0.8", value_parser = score,
        allow_negative_numbers = true)]
    threshold: f32,

    /// Looks at each line as at an answer of the model.
    #[arg(long)]
    answers: bool,

    /// Masks or blocks nothing, and says what would have been done.
    #[arg(long, conflicts_with = "answers")]
    report_only: bool,

    /// The rules of this pack (TOML) in the place of the built-in ones, which it may extend. One that can't be used is an
    /// error that names its line: without lines to read, this checks a pack.
    #[arg(long, value_name = "PACK")]
    rules: Option<PathBuf>,

    /// The longest line, in bytes. A longer one is an error, and is not kept in memory.
    #[arg(long, value_name = "BYTES", default_value = "16777216")]
    max_line: usize,

    #[command(flatten)]
    policies: Policies,

    #[command(flatten)]
    remotes: remote::Remotes,
}

fn score(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Config::parse()).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(bad) => {
            eprintln!("guard_cli: {bad} lines could not be read");
            ExitCode::FAILURE
        }
        // Whoever reads our output has read enough: `head`, for one.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guard_cli: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How many lines could not be read.
async fn run(config: &Config) -> Result<u64, BoxError> {
    let guard = guard(config)?;
    let progress = progress(config)?;
    let mut lines = Lines::open(config)?;
    let mut out = io::stdout();
    let mut bad = 0;
    while let Some(line) = lines.next()? {
        match line.and_then(|line| request(config, &line)) {
            Ok(request) => {
                let response = guard.clone().oneshot(request).await?;
                writeln!(out, "{}", verdict(config, response).await?)?;
            }
            Err(error) => {
                bad += 1;
                progress.suspend(|| eprintln!("guard_cli: line {}: {error}", lines.number));
            }
        }
        progress.set_position(lines.read);
    }
    progress.finish_and_clear();
    Ok(bad)
}

/// The layer, as it is asked.
type Guard = BoxCloneSyncService<Request<Full<Bytes>>, Response<Answer>, Infallible>;
type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// The guard before a model that answers with what it was asked, or with the line.
fn guard(config: &Config) -> Result<Guard, BoxError> {
    // Room for a text in which every character is escaped.
    let most = config.max_line.saturating_mul(6).saturating_add(64);
    let mut guard = PromptGuardLayer::builder().max_body(most).max_answer(most);
    let model = service_fn(|request: Request<RequestBody<Full<Bytes>>>| async move {
        let says = request.extensions().get::<Says>().cloned();
        let body = match says {
            Some(Says(line)) => Full::new(line).boxed_unsync(),
            None => request.into_body().map_err(|error| match error {}).boxed_unsync(),
        };
        let json = HeaderValue::from_static("application/json");
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        Ok::<_, Infallible>(response)
    });
    if let Some(path) = &config.policies.policies {
        let detectors = config.remotes.name_in(detectors(config)?)?;
        guard = config.policies.add_to(guard, path, &detectors)?;
        let stack = Stack::new()
            .peer_cert(Policies::peers()?)
            .rate_limit(config.policies.limits()?)
            .prompt_guard(guard.build()?);
        let service = ServiceBuilder::new().map_response(boxed).layer(stack).service(model);
        return Ok(BoxCloneSyncService::new(service));
    }
    let threshold = config.threshold;
    let (block, mask) = (Action::Block.at(threshold), Action::Redact.at(threshold));
    if config.answers {
        guard = guard
            .output_detector(CodeRules::builtin()?, block)
            .output_detector(Secrets::builtin()?, mask.clone())
            .output_detector(PersonalData::builder().build()?, mask);
    } else {
        if !config.remotes.only_remote {
            guard = guard
                .detector(rules(config)?, block)
                .detector(Secrets::builtin()?, mask.clone())
                .detector(PersonalData::builder().build()?, mask);
        }
        guard = config.remotes.add_to(guard, threshold)?;
    }
    if config.report_only {
        guard = guard.report_only();
    }
    let service = ServiceBuilder::new().map_response(boxed).layer(guard.build()?).service(model);
    Ok(BoxCloneSyncService::new(service))
}

fn boxed<B>(response: Response<B>) -> Response<Answer>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    response.map(BodyExt::boxed_unsync)
}

/// Those that a file of policies may name.
fn detectors(config: &Config) -> Result<DetectorSet, BoxError> {
    Ok(DetectorSet::new()
        .detector("injection", rules(config)?)
        .detector("secrets", Secrets::builtin()?)
        .detector("personal_data", PersonalData::builder().build()?)
        .detector("code", CodeRules::builtin()?))
}

fn rules(config: &Config) -> Result<InjectionRules, BoxError> {
    let pack = match &config.rules {
        Some(path) => RulePack::from_file(path)?,
        None => RulePack::builtin(),
    };
    if config.rules.is_some() {
        eprintln!("guard_cli: rule pack {}, version {}", pack.name(), pack.version());
    }
    Ok(InjectionRules::with_pack(&pack)?)
}

fn request(config: &Config, line: &[u8]) -> Result<Request<Full<Bytes>>, BoxError> {
    let mut request = wire::request(config.wire, config.answers, line)?;
    config.policies.assert(&mut request);
    Ok(request)
}

/// What became of the request, as a line of output.
async fn verdict(config: &Config, response: Response<Answer>) -> Result<Value, BoxError> {
    let (head, body) = response.into_parts();
    let of_answer = head.extensions.get::<AnswerVerdict>().map(|answer| &answer.0);
    let of_prompt = head.extensions.get::<Verdict>().filter(|_| !config.answers);
    let verdict = of_answer.or(of_prompt);
    let rejection = head.extensions.get::<Rejection>();
    let action = match (verdict, rejection) {
        (Some(verdict), _) => verdict.action,
        (None, Some(_)) => Outcome::Block,
        (None, None) => Outcome::Allow,
    };
    let text = match rejection {
        Some(_) => None,
        None => {
            let body = body.collect().await?.to_bytes();
            Some(wire::passed_on(config.wire, config.answers, &body)?)
        }
    };
    let findings: Vec<_> = verdict
        .into_iter()
        .flat_map(Verdict::outcomes)
        .map(|FindingOutcome { finding, outcome, dry_run, .. }| {
            json!({
                "rule": finding.rule, "category": finding.category.as_str(),
                "score": rounded(finding.score),
                // The prompt as a whole is no segment of it.
                "segment": Some(finding.segment).filter(|segment| *segment != usize::MAX),
                "span": finding.span.as_ref().map(|span| [span.start, span.end]),
                "outcome": outcome.as_str(), "dry_run": dry_run,
            })
        })
        .collect();
    let code = rejection.map(Rejection::code);
    let unavailable = verdict.map(|verdict| &*verdict.unavailable).unwrap_or_default();
    Ok(json!({
        "action": action.as_str(), "code": code, "findings": findings,
        "unavailable": unavailable, "policy": verdict.map(Verdict::policy), "text": text,
    }))
}

/// A score in three decimals, as it was written in the rules.
fn rounded(score: f32) -> f64 {
    (f64::from(score) * 1000.0).round() / 1000.0
}

fn progress(config: &Config) -> Result<ProgressBar, BoxError> {
    if !io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let Some(file) = &config.file else {
        let style = "{spinner} {bytes} read, {bytes_per_sec}";
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(style)?);
        bar.enable_steady_tick(Duration::from_millis(200));
        return Ok(bar);
    };
    let style = "{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} to go";
    let length = std::fs::metadata(file)?.len();
    Ok(ProgressBar::new(length).with_style(ProgressStyle::with_template(style)?))
}

/// Lines of which none takes up more memory than was agreed.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    max: usize,
    /// Of the line that was read last, from 1.
    number: u64,
    /// Bytes so far.
    read: u64,
}

impl Lines {
    fn open(config: &Config) -> Result<Self, BoxError> {
        let reader: Box<dyn BufRead + Send> = match &config.file {
            Some(file) => Box::new(BufReader::new(
                File::open(file).map_err(|error| format!("{}: {error}", file.display()))?,
            )),
            None => Box::new(BufReader::new(io::stdin())),
        };
        Ok(Self { reader, max: config.max_line, number: 0, read: 0 })
    }

    /// The next line that is not blank, or why it can't be had; `None` at the end.
    fn next(&mut self) -> io::Result<Option<Result<Vec<u8>, BoxError>>> {
        loop {
            let mut line = Vec::new();
            let most = (self.max as u64).saturating_add(1);
            let read = (&mut self.reader).take(most).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.read += read as u64;
            if read > self.max && !line.ends_with(b"\n") {
                self.skip_line()?;
                return Ok(Some(Err(format!("longer than {} bytes", self.max).into())));
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(Ok(line.trim_ascii().to_vec())));
            }
        }
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let (skipped, done) = match end {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.reader.consume(skipped);
            self.read += skipped as u64;
            if done {
                return Ok(());
            }
        }
    }
}

fn is_broken_pipe(error: &BoxError) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
