//! `ripstop lab apply` and `delete`.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use ripstop_lab::api::Api;
use ripstop_lab::apply::{self, Outcome};
use ripstop_lab::manifest::{self, ManifestError, Resource, Source, defined_by};

use super::{Files, Name, block_on};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, clap::Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    name: Name,
    #[command(flatten)]
    files: Files,
    /// Objects that are not there are no error.
    #[arg(long)]
    ignore_not_found: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let sources = read(&args.files)?;
    let paths = args.name.running()?;
    block_on(async {
        let api = Api::connect(&paths.kubeconfig()).await?;
        let manifests = checked(manifest::check(&sources, custom_kinds(&api).await?))?;
        Ok(report(
            &apply::apply(&api, &manifests.objects, &manifests.kinds).await,
        ))
    })
}

pub(super) fn delete(args: &DeleteArgs) -> Result<ExitCode> {
    let sources = read(&args.files)?;
    let paths = args.name.running()?;
    block_on(async {
        let api = Api::connect(&paths.kubeconfig()).await?;
        let manifests = checked(manifest::identify(&sources, custom_kinds(&api).await?))?;
        let ignore = args.ignore_not_found;
        Ok(report(&apply::delete(&api, &manifests, ignore).await))
    })
}

/// Kinds that CustomResourceDefinitions have added to the API.
async fn custom_kinds(api: &Api) -> Result<Vec<Resource>> {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    Ok(api.list(path).await?.iter().flat_map(defined_by).collect())
}

fn read(files: &Files) -> Result<Vec<Source>> {
    if files.files.is_empty() {
        bail!("expected a manifest: -f FILE, -f DIRECTORY or -f - for standard input");
    }
    checked(manifest::read_all(&files.files))
}

/// All that is wrong with manifests as one error, a line each.
pub(super) fn checked<T>(result: Result<T, Vec<ManifestError>>) -> Result<T> {
    result.map_err(|errors| {
        let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
        anyhow!("nothing was applied:\n{}", lines.join("\n"))
    })
}

/// Prints what became of each object; fails if one was refused.
fn report(outcomes: &[Outcome]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for outcome in outcomes {
        match &outcome.result {
            Ok(change) => println!("{} {}", outcome.label, change.word()),
            Err(errors) => {
                code = ExitCode::FAILURE;
                errors.iter().for_each(|error| eprintln!("{error}"));
            }
        }
    }
    code
}
