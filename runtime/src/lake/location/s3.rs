//! S3 and its likes: object_store's client, made of the lake's options and the environment.
//!
//! Receives an address of `s3` or `s3a`, options and the environment's `AWS_…`. Promises that a setting with which two
//! writers overwrite each other's commit is refused. Credentials are object_store's business: keys, a web identity, the
//! role of a task or an instance. Never reads the profiles of `~/.aws`.

use std::collections::HashMap;
use std::sync::Arc;

use deltalake::DeltaResult;
use deltalake::logstore::{StorageConfig, client_options_from_certificate};
use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::SpawnedReqwestConnector;
use url::Url;

/// The store whose root is the bucket of `url`.
pub(in crate::lake) fn open(url: &Url, config: &StorageConfig) -> DeltaResult<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new().with_url(url.as_str()).with_retry(config.retry.clone());
    if let Some(runtime) = &config.runtime {
        builder = builder.with_http_connector(SpawnedReqwestConnector::new(runtime.get_handle()));
    }
    if let Some(path) = config.certificate.as_ref().and_then(|certificate| certificate.certificate_path.as_ref()) {
        builder = builder.with_client_options(client_options_from_certificate(path)?);
    }
    for (key, value) in settings(&config.raw, environment()) {
        builder = builder.with_config(key, value);
    }
    Ok(Arc::new(builder.build()?))
}

/// The setting, among the options or in the environment, with which S3 does without put-if-absent. Nothing is exactly once
/// without it.
pub(in crate::lake) fn overwriting(
    options: &HashMap<String, String>,
    lookup: impl Fn(&str) -> Option<String>,
) -> Option<&'static str> {
    let value = |name: &str| {
        let short = name.strip_prefix("AWS_").unwrap_or(name);
        let given = options.iter().find(|(key, _)| key.eq_ignore_ascii_case(name) || key.eq_ignore_ascii_case(short));
        given.map(|(_, value)| value.clone()).or_else(|| lookup(name)).unwrap_or_default().trim().to_ascii_lowercase()
    };
    if value("AWS_CONDITIONAL_PUT") == "disabled" {
        return Some("aws_conditional_put");
    }
    if value("AWS_S3_LOCKING_PROVIDER") == "dynamodb" {
        return Some("aws_s3_locking_provider");
    }
    matches!(value("AWS_S3_ALLOW_UNSAFE_RENAME").as_str(), "1" | "true" | "on" | "yes" | "y")
        .then_some("aws_s3_allow_unsafe_rename")
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What object_store is told: the environment's `AWS_…`, over it the options.
fn settings(
    options: &HashMap<String, String>,
    environment: impl Iterator<Item = (String, String)>,
) -> HashMap<AmazonS3ConfigKey, String> {
    let known = |name: &str| name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().ok();
    let around = environment.filter(|(name, _)| name.starts_with("AWS_"));
    let given = options.iter().map(|(name, value)| (name.clone(), value.clone()));
    // S3 has no copy-if-absent, and object_store must be told what to do instead.
    let mut settings = HashMap::from([(AmazonS3ConfigKey::CopyIfNotExists, "multipart".to_owned())]);
    settings.extend(around.chain(given).filter_map(|(name, value)| Some((known(&name)?, value))));
    settings
}

#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey;

    use super::*;

    fn options(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_settings_that_do_without_put_if_absent_are_found() {
        for (key, value, name) in [
            ("conditional_put", "disabled", "aws_conditional_put"),
            ("AWS_CONDITIONAL_PUT", "disabled", "aws_conditional_put"),
            ("aws_s3_locking_provider", "dynamodb", "aws_s3_locking_provider"),
            ("AWS_S3_ALLOW_UNSAFE_RENAME", "true", "aws_s3_allow_unsafe_rename"),
        ] {
            assert_eq!(overwriting(&options(&[(key, value)]), |_| None), Some(name), "{key}");
        }
        let told = overwriting(&options(&[]), |name| (name == "AWS_CONDITIONAL_PUT").then(|| "disabled".to_owned()));
        assert_eq!(told, Some("aws_conditional_put"), "of the environment");
        let sound = options(&[("aws_conditional_put", "etag"), ("aws_region", "eu-north-1")]);
        assert_eq!(overwriting(&sound, |_| None), None);
    }

    #[test]
    fn an_option_wins_over_the_environment_whatever_its_spelling() {
        let around = [
            ("AWS_REGION", "eu-north-1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "around"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_UNKNOWN_TO_EVERYBODY", "x"),
            ("TOKEN", "of another program"),
        ];
        let around = around.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let found = settings(&options(&[("access_key_id", "given"), ("AWS_REGION", "us-east-1")]), around.into_iter());
        let expected = [
            (AmazonS3ConfigKey::Region, "us-east-1"),
            (AmazonS3ConfigKey::Endpoint, "http://127.0.0.1:9000"),
            (AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), "true"),
            (AmazonS3ConfigKey::AccessKeyId, "given"),
            (AmazonS3ConfigKey::SecretAccessKey, "secret"),
            (AmazonS3ConfigKey::CopyIfNotExists, "multipart"),
        ];
        assert_eq!(found, HashMap::from(expected.map(|(key, value)| (key, value.to_owned()))));
        let own = settings(&options(&[("copy_if_not_exists", "header: x: y")]), std::iter::empty());
        assert_eq!(own.get(&AmazonS3ConfigKey::CopyIfNotExists).map(String::as_str), Some("header: x: y"));
    }
}
