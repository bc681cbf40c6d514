//! Kafka Connect's REST API, as much of it as a connector needs.
//!
//! Receives a cluster's address and a connector's filled configuration. Promises that an answer is bounded in time and
//! size, and that no message repeats a configuration: Connect's own refusals may. Never follows a redirect, which could
//! carry the configuration's secrets elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode, Url};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Connect answers late while its workers agree on who does what.
const ANSWER_TIME: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// A Connect cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    url: Url,
    client: Client,
}

/// What Connect says of a connector.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// the connector's name
    pub name: String,
    /// `RUNNING`, `PAUSED`, `STOPPED`, `FAILED`, `UNASSIGNED` or `RESTARTING`
    pub state: String,
    /// why the connector itself failed
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// its tasks
    pub tasks: Vec<Task>,
}

/// A task of a connector.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    /// its number
    pub id: u32,
    /// as a connector's
    pub state: String,
    /// the worker that runs it, as `host:port`
    pub worker: String,
    /// the causes of its failure, without Java's frames
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Status {
    /// True when the connector and its tasks run, and there is a task.
    pub fn is_running(&self) -> bool {
        self.state == "RUNNING" && !self.tasks.is_empty() && self.tasks.iter().all(|task| task.state == "RUNNING")
    }
}

impl Cluster {
    /// The cluster at `url`, such as `http://localhost:8083`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the address cannot be used.
    pub fn new(url: &str) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Config, "the address of Connect cannot be used");
        let hint = "give it as `http://host:8083`, without a password";
        let mut url = Url::parse(url).map_err(|e| bad().caused_by(e).hint(hint))?;
        if !matches!(url.scheme(), "http" | "https") || url.password().is_some() {
            return Err(bad().hint(hint));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let client = Client::builder()
            .timeout(ANSWER_TIME)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| Error::new(ErrorKind::Internal, "cannot make an HTTP client").caused_by(e))?;
        Ok(Cluster { url, client })
    }

    /// Registers the connector, or gives the registered one this configuration.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when Connect refuses the configuration (its settings are named, their values not);
    /// [`ErrorKind::Denied`], [`ErrorKind::Unavailable`].
    pub async fn apply(&self, name: &str, config: &BTreeMap<String, String>) -> Result<()> {
        // What is wrong is asked for first: of a refused configuration Connect gives one text that may hold values.
        let class = config.get("connector.class").map(String::as_str).unwrap_or_default();
        let kind = class.rsplit('.').next().unwrap_or_default();
        let mut named = config.clone();
        named.insert("name".to_owned(), name.to_owned());
        let path = format!("connector-plugins/{kind}/config/validate");
        let (status, body) = self.call(Method::PUT, &path, Some(&named)).await?;
        if status.is_success() {
            refuse(&body, config)?;
        } else if status == StatusCode::NOT_FOUND {
            return Err(Error::new(ErrorKind::Config, format!("Connect has no connector class `{class}`"))
                .hint("put Debezium's plugin in the workers' `plugin.path`"));
        }
        let (status, _) = self.call(Method::PUT, &format!("connectors/{name}/config"), Some(config)).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(self.refusal(status, "the configuration"))
    }

    /// What Connect says of connector `name`; none: it is not registered.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`], [`ErrorKind::Unavailable`].
    pub async fn status(&self, name: &str) -> Result<Option<Status>> {
        let (status, body) = self.call(Method::GET, &format!("connectors/{name}/status"), None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let told: StatusBody = serde_json::from_slice(&body).map_err(|e| self.nonsense().caused_by(e))?;
                let error = |trace: Option<String>| trace.map(|trace| causes(&trace));
                let task = |t: TaskTold| Task { id: t.id, state: t.state, worker: t.worker_id, error: error(t.trace) };
                Ok(Some(Status {
                    name: name.to_owned(),
                    state: told.connector.state,
                    error: error(told.connector.trace),
                    tasks: told.tasks.into_iter().map(task).collect(),
                }))
            }
            status => Err(self.refusal(status, "to tell of the connector")),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&BTreeMap<String, String>>,
    ) -> Result<(StatusCode, Vec<u8>)> {
        let url =
            self.url.join(path).map_err(|e| Error::new(ErrorKind::Config, "a name in an address").caused_by(e))?;
        let mut request = self.client.request(method, url).header("content-type", "application/json");
        if let Some(body) = body {
            let text = serde_json::to_vec(body)
                .map_err(|e| Error::new(ErrorKind::Internal, "cannot write a configuration").caused_by(e))?;
            request = request.body(text);
        }
        let mut answer = request.send().await.map_err(|e| self.silent(e))?;
        let mut held = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|e| self.silent(e))? {
            if held.len() + part.len() > ANSWER_BYTES_MAX {
                return Err(self.nonsense().caused_by("an answer is larger than 4 MiB"));
            }
            held.extend_from_slice(&part);
        }
        Ok((answer.status(), held))
    }

    fn silent(&self, error: reqwest::Error) -> Error {
        Error::new(ErrorKind::Unavailable, format!("Connect at `{}` does not answer", self.url))
            .caused_by(error.without_url())
            .hint("is a worker up, and is this its REST address? give another with `--connect URL`")
    }

    fn nonsense(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("`{}` does not answer as Connect does", self.url))
            .hint("give the REST address of a Connect worker with `--connect URL`")
    }

    fn refusal(&self, status: StatusCode, what: &str) -> Error {
        let told = format!("Connect at `{}` refuses {what}: {status}", self.url);
        match status.as_u16() {
            401 | 403 => {
                Error::new(ErrorKind::Denied, told).hint("ask who runs the cluster for access to its REST API")
            }
            409 => Error::new(ErrorKind::Unavailable, told).hint("the workers are rebalancing; try again"),
            400 | 422 => Error::new(ErrorKind::Config, told).hint("the worker's log says why"),
            _ => Error::new(ErrorKind::Unavailable, told).hint("the worker's log says why"),
        }
    }
}

/// What Connect finds wrong in a configuration, by setting. A text that repeats a value of the configuration is cut out.
fn refuse(body: &[u8], config: &BTreeMap<String, String>) -> Result<()> {
    let Ok(found) = serde_json::from_slice::<Validation>(body) else { return Ok(()) };
    let wrong: Vec<String> = found
        .configs
        .into_iter()
        .filter(|setting| !setting.value.errors.is_empty())
        .map(|setting| {
            let told = setting.value.errors.join("; ");
            let shows = config.iter().any(|(_, value)| value.len() > 3 && told.contains(value.as_str()));
            let told = if shows { "Connect refuses the value" } else { told.trim_end_matches('.') };
            format!("`{}`: {told}", setting.value.name)
        })
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("Connect refuses {}", wrong.join(", ")))
        .hint("the settings are Debezium's; a refused database is often one that the worker cannot reach"))
}

/// A Java trace without its frames.
fn causes(trace: &str) -> String {
    let lines =
        trace.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("at ") && !l.starts_with("... "));
    lines.take(8).collect::<Vec<_>>().join("; ")
}

#[derive(Deserialize)]
struct StatusBody {
    connector: ConnectorTold,
    #[serde(default)]
    tasks: Vec<TaskTold>,
}

#[derive(Deserialize)]
struct ConnectorTold {
    state: String,
    trace: Option<String>,
}

#[derive(Deserialize)]
struct TaskTold {
    id: u32,
    state: String,
    #[serde(default)]
    worker_id: String,
    trace: Option<String>,
}

#[derive(Deserialize)]
struct Validation {
    configs: Vec<SettingTold>,
}

#[derive(Deserialize)]
struct SettingTold {
    value: ValueTold,
}

#[derive(Deserialize)]
struct ValueTold {
    name: String,
    #[serde(default)]
    errors: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_not_repeated() {
        let config = BTreeMap::from([("database.password".to_owned(), "hunter2".to_owned())]);
        let body = br#"{"configs": [
            {"value": {"name": "database.hostname", "errors": ["Unable to connect: hunter2 is wrong."]}},
            {"value": {"name": "topic.prefix", "errors": ["A value is required."]}},
            {"value": {"name": "tasks.max", "errors": []}}]}"#;
        let told = refuse(body, &config).unwrap_err().to_string();
        assert_eq!(
            told,
            "Connect refuses `database.hostname`: Connect refuses the value, `topic.prefix`: A value is required"
        );
    }

    #[test]
    fn a_trace_is_cut_to_its_causes() {
        let trace =
            "org.x.ConnectException: gone\n\tat org.x.A.b(A.java:1)\nCaused by: java.io.EOFException\n\t... 4 more\n";
        assert_eq!(causes(trace), "org.x.ConnectException: gone; Caused by: java.io.EOFException");
    }

    #[test]
    fn an_address_with_a_password_is_refused_without_showing_it() {
        for url in ["http://lode:hunter2@localhost:8083", "ftp://localhost", "localhost:8083"] {
            let error = Cluster::new(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
