//! Another module takes over a table between two batches, and makes room for the one before while it is on probation.

use serde_json::Value;

use super::{Transformed, Upsert};
use crate::error::{Error, ErrorKind, Result};
use crate::table::Selection;
use crate::transform::Module;

/// Commits in which a module that took over can be taken back.
const PROBATION_COMMITS: u32 = 100;

impl Upsert {
    /// From the next batch on, `module` with `params` makes the table's rows.
    ///
    /// # Errors
    /// Why it does not; the module before goes on.
    pub(in crate::pipeline) async fn adopt(&mut self, module: Module, params: Value) -> Result<()> {
        let prior = self.plan.module.replace((module.clone(), params.clone()));
        if let Some(schema) = self.schema.clone()
            && let Err(error) = self.follow(&schema).await
        {
            self.plan.module = prior;
            return Err(error);
        }
        self.prior = prior.map(|(module, params)| (module, params, PROBATION_COMMITS));
        self.serving.set(&self.plan.name, module, params);
        Ok(())
    }

    /// Lets the module before serve again, after `error` of the one on probation; false where there is none.
    async fn roll_back(&mut self, error: &Error) -> Result<bool> {
        let Some((module, params, _)) = self.prior.take() else { return Ok(false) };
        let failed = self.plan.module.replace((module.clone(), params.clone()));
        if let Some(schema) = self.schema.clone() {
            self.follow(&schema).await?;
        }
        let sha256 = failed.map(|(failed, _)| failed.sha256());
        let back = module.sha256();
        self.serving.set(&self.plan.name, module, params);
        self.serving.refuse(
            &self.plan.name,
            sha256,
            &Error::new(ErrorKind::Module, format!("rolled back to the module `{back}`: {error}"))
                .hint("mend the module and replace its file"),
        );
        Ok(true)
    }

    /// As [`Self::transform`]; a module on probation that fails or rejects too much makes room for the one before it.
    pub(super) async fn transform_or_roll_back(&mut self, selection: &Selection) -> Result<Transformed> {
        let transformed = self.transform(selection).await;
        let Some((_, _, left)) = &mut self.prior else { return transformed };
        *left -= 1;
        let ended = *left == 0;
        let failure = match &transformed {
            Ok(transformed) => self.excess_of(transformed, selection.upserts().num_rows()),
            Err(error) if error.kind() == ErrorKind::Module => Some(Error::new(ErrorKind::Module, error.to_string())),
            Err(_) => None,
        };
        if let Some(failure) = failure
            && self.roll_back(&failure).await?
        {
            return self.transform(selection).await;
        }
        if ended {
            self.prior = None;
        }
        transformed
    }

    /// What to say of a module that failed on, or rejected, more than it may on probation.
    fn excess_of(&self, transformed: &Transformed, rows: usize) -> Option<Error> {
        let limits = self.plan.module.as_ref()?.0.limits();
        let share = (rows as f64 * limits.failed_ratio) as usize;
        let (_, last) = transformed.rejected.last()?;
        let (done, count, may) = match transformed.failed > share {
            true => ("failed on", transformed.failed, share),
            false => ("rejected", transformed.rejected.len(), share.max(limits.failed_rows)),
        };
        let message = format!("it {done} `{count}` of `{rows}` rows; last: {last}");
        (count > may).then(|| Error::new(ErrorKind::Module, message))
    }
}
