//! `lode check`: everything that can be wrong before a run, with what to do about it.

use std::process::ExitCode;

use serde::Serialize;

use crate::config::{Config, Source};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::lake_error;
use crate::pipeline::module_limits;
use crate::transform::Engine;

#[derive(Serialize)]
struct Finding {
    what: String,
    ok: bool,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Prints a line a thing that was checked; exit code 2 when one is wrong.
pub(super) async fn check(config: &Config, json: bool) -> Result<ExitCode> {
    let mut findings = vec![good("pipeline file", format!("`{}`", config.file.display()))];
    match &config.source {
        Source::Replay { files } => findings.push(good("source", format!("{} capture files", files.len()))),
        Source::Kafka { brokers, topics, options, .. } => {
            findings.push(good("source", format!("kafka `{brokers}`, topics {}", topics.join(", "))));
            for (key, value) in options.iter().filter(|(_, value)| value.is_secret()) {
                findings.push(outcome("secret", value.fetch(key).map(|_| format!("`{key}` can be read"))));
            }
        }
    }
    findings.push(outcome("lake", check_lake(config).await.map(|()| format!("`{}` can be listed", config.lake.root))));
    let engine = Engine::with_cache(module_limits(config))?;
    for (table, transform) in config.transforms() {
        {
            let path = &transform.path;
            let what = format!("module of {} `{}`", table.layer, table.name);
            let loaded = std::fs::read(path)
                .map_err(|e| {
                    Error::new(ErrorKind::Module, format!("`{}` cannot be read", path.display()))
                        .caused_by(e)
                        .hint("build it first: `make modules`")
                })
                .and_then(|bytes| engine.load(&bytes, &path.to_string_lossy()))
                .and_then(|module| match &transform.sha256 {
                    Some(pin) if *pin != module.sha256() => Err(Error::new(
                        ErrorKind::Module,
                        format!("`{}` has the sha256 `{}`, pinned is `{pin}`", path.display(), module.sha256()),
                    )
                    .hint("bring the pinned file back, or change `sha256`")),
                    _ => Ok(format!("`{}`, sha256 {}", path.display(), module.sha256())),
                });
            findings.push(outcome(&what, loaded));
        }
    }
    let wrong = findings.iter().any(|f| !f.ok);
    if json {
        let text = serde_json::to_string(&findings)
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot write the findings").caused_by(e))?;
        println!("{text}");
    } else {
        for f in &findings {
            println!("{}  {}: {}", if f.ok { "ok   " } else { "wrong" }, f.what, f.message);
            if let Some(hint) = &f.hint {
                println!("       hint: {hint}");
            }
        }
    }
    Ok(ExitCode::from(if wrong { 2 } else { 0 }))
}

async fn check_lake(config: &Config) -> Result<()> {
    let store = super::lake_root(config)?.store()?;
    store.list_with_delimiter(None).await.map(|_| ()).map_err(|e| {
        lake_error(format!("`{}` cannot be listed", config.lake.root), e)
            .hint("check the address, `lake.options`, and the credentials in the environment")
    })
}

fn good(what: &str, message: String) -> Finding {
    Finding { what: what.to_owned(), ok: true, message, hint: None }
}

fn outcome(what: &str, result: Result<String>) -> Finding {
    match result {
        Ok(message) => good(what, message),
        Err(error) => Finding {
            what: what.to_owned(),
            ok: false,
            message: error.to_string(),
            hint: error.next_step().map(str::to_owned),
        },
    }
}
