//! The detectors that other servers run.

use std::time::Duration;

use clap::Args;
use palisade::{
    BuildError, Secret,
    prompt_guard::{
        Action, AsyncDetector, AsyncLimits, DetectorSet, OnUnavailable, PromptGuardLayer,
        PromptGuardLayerBuilder,
        remote::{LlamaGuard, Moderation, Presidio, RemoteServer, TextClassifier},
    },
};

/// Which are asked, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Remote detectors")]
pub(crate) struct Remotes {
    /// Asks a classifier behind text-embeddings-inference, such as Prompt Guard 2: `POST URL/predict`.
    #[arg(long, value_name = "URL")]
    tei: Option<String>,

    /// The classifier's own threshold, which becomes 0.8 on the guard's scale.
    #[arg(long, value_name = "SCORE", default_value = "0.5")]
    tei_threshold: f32,

    /// Asks an OpenAI-compatible moderation endpoint: `POST URL/v1/moderations`.
    #[arg(long, value_name = "URL")]
    moderation: Option<String>,

    /// Which of its models judges. By default the server chooses.
    #[arg(long, value_name = "NAME")]
    moderation_model: Option<String>,

    /// Asks Llama Guard: `POST URL/v1/chat/completions`.
    #[arg(long, value_name = "URL")]
    llama_guard: Option<String>,

    /// Its name at that server.
    #[arg(long, value_name = "NAME", default_value = "meta-llama/Llama-Guard-3-8B")]
    llama_guard_model: String,

    /// Asks Presidio's analyzer, and masks what it finds: `POST URL/analyze`.
    #[arg(long, value_name = "URL")]
    presidio: Option<String>,

    /// The language that it reads the texts in.
    #[arg(long, value_name = "CODE", default_value = "en")]
    presidio_language: String,

    /// The entities that it looks for, with commas between them. By default all that it knows.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    presidio_entities: Vec<String>,

    /// The bearer token that these servers are shown.
    #[arg(long, value_name = "TOKEN", env = "GUARD_TOKEN", hide_env_values = true, value_parser = secret)]
    remote_token: Option<Secret<String>>,

    /// How long each of them may take for a line, in milliseconds. One that takes longer is unavailable, and the
    /// line is blocked with the code `guard_unavailable`.
    #[arg(long, value_name = "MILLISECONDS", default_value = "30000")]
    remote_timeout: u64,

    /// Asks them over plain HTTP also where they are not on this machine.
    #[arg(long)]
    insecure_plain_http: bool,

    /// Leaves out the detectors of this process.
    #[arg(long)]
    pub(crate) only_remote: bool,
}

/// What takes a detector that waits, under its name.
type Take<'a> = &'a mut dyn FnMut(&'static str, Box<dyn AsyncDetector>) -> Result<(), BuildError>;

impl Remotes {
    /// Adds those that are asked for, which act from this score on.
    pub(crate) fn add_to(
        &self,
        mut guard: PromptGuardLayerBuilder,
        threshold: f32,
    ) -> Result<PromptGuardLayerBuilder, BuildError> {
        self.each(&mut |name, detector| {
            let action = if name == "presidio" { Action::Redact } else { Action::Block };
            let (rule, limits) = (action.at(threshold), self.limits());
            let before = std::mem::replace(&mut guard, PromptGuardLayer::builder());
            guard = before.async_detector(detector, rule, limits, OnUnavailable::Refuse);
            Ok(())
        })?;
        Ok(guard)
    }

    /// The same for policies to name.
    pub(crate) fn name_in(&self, mut set: DetectorSet) -> Result<DetectorSet, BuildError> {
        self.each(&mut |name, detector| {
            let (limits, refuse) = (self.limits(), OnUnavailable::Refuse);
            set = std::mem::take(&mut set).async_detector(name, detector, limits, refuse)?;
            Ok(())
        })?;
        Ok(set)
    }

    /// Each line is to be asked about, however many failed before it.
    fn limits(&self) -> AsyncLimits {
        AsyncLimits::within(Duration::from_millis(self.remote_timeout)).without_breaker()
    }

    fn each(&self, take: Take<'_>) -> Result<(), BuildError> {
        if let Some(url) = &self.tei {
            let classifier = TextClassifier::builder(self.server(url));
            take("tei", Box::new(classifier.threshold(self.tei_threshold).build()?))?;
        }
        if let Some(url) = &self.moderation {
            let mut moderation = Moderation::builder(self.server(url));
            if let Some(model) = &self.moderation_model {
                moderation = moderation.model(model);
            }
            take("moderation", Box::new(moderation.build()?))?;
        }
        if let Some(url) = &self.llama_guard {
            let llama_guard = LlamaGuard::builder(self.server(url), &self.llama_guard_model);
            take("llama_guard", Box::new(llama_guard.build()?))?;
        }
        if let Some(url) = &self.presidio {
            let mut presidio =
                Presidio::builder(self.server(url)).language(&self.presidio_language);
            if !self.presidio_entities.is_empty() {
                presidio = presidio.entities(&self.presidio_entities);
            }
            take("presidio", Box::new(presidio.build()?))?;
        }
        Ok(())
    }

    fn server(&self, url: &str) -> RemoteServer {
        let mut server = RemoteServer::at(url);
        if let Some(token) = &self.remote_token {
            server = server.bearer(token);
        }
        if self.insecure_plain_http { server.insecure_plain_http() } else { server }
    }
}

#[allow(clippy::unnecessary_wraps)]
fn secret(text: &str) -> Result<Secret<String>, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}
