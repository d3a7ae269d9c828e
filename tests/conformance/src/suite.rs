//! Running scenarios: a cluster per engine and stack, many scenarios at once in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use ripstop_tests::visible_folder;

use crate::cluster::{Cluster, set_patience};
use crate::engine::{Engine, Family, Stack};
use crate::matrix::{Column, Matrix, Row, Verdict};
use crate::options::{Options, Output};
use crate::place::lock;
use crate::scenario::{Scenario, Skip};
use crate::scenarios;
use crate::stage::Stage;

/// A scenario on a path for a family.
#[derive(Clone, Copy)]
struct Job {
    scenario: Scenario,
    path: crate::path::Path,
    family: Family,
}

/// What `ripstop-conformance` does without a verb.
///
/// # Errors
/// If no scenario has been chosen, or its own path is unknown.
pub fn main(options: &Options) -> Result<ExitCode> {
    if options.list {
        for scenario in chosen(options) {
            let mark = if scenario.single_stack { "*" } else { " " };
            println!("{:32} {mark} {}", scenario.name, scenario.promise);
        }
        println!("\n* also in single-stack clusters");
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe()?;
    let matrix = run(options, &program.to_string_lossy())?;
    match options.output {
        Output::Text => print!("{}", matrix.text()),
        Output::Json => println!("{}", matrix.json()?),
    }
    Ok(match matrix.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Runs what the options choose; `own` is `ripstop-conformance` itself.
///
/// # Errors
/// If no scenario has been chosen.
pub fn run(options: &Options, own: &str) -> Result<Matrix> {
    set_patience(options.patience);
    let scenarios = chosen(options);
    ensure!(
        !scenarios.is_empty(),
        "no scenario is called {:?}; see --list",
        options.scenario
    );
    let folder = visible_folder();
    let program = &folder.path().join("ripstop-conformance");
    std::fs::copy(own, program).with_context(|| format!("copy {own}"))?;
    let program = &program.to_string_lossy();
    let matrix = Mutex::new(Matrix::new(&scenarios));
    for stack in options.stacks() {
        for engine in options.engines() {
            let jobs = jobs(&scenarios, stack, options);
            if jobs.is_empty() {
                continue;
            }
            let begin = std::time::Instant::now();
            in_cluster(engine, stack, &jobs, options.parallel, program, &matrix);
            eprintln!(
                "{} {}: {} cells after {:.1} s",
                engine.name(),
                stack.name(),
                jobs.len(),
                begin.elapsed().as_secs_f64()
            );
        }
    }
    Ok(matrix
        .into_inner()
        .unwrap_or_else(|error| error.into_inner()))
}

fn chosen(options: &Options) -> Vec<Scenario> {
    let all = scenarios::all().into_iter();
    all.filter(|scenario| options.wants(scenario.name))
        .collect()
}

fn jobs(scenarios: &[Scenario], stack: Stack, options: &Options) -> Vec<Job> {
    let families: Vec<_> = stack
        .families()
        .iter()
        .filter(|family| options.families().contains(family))
        .collect();
    let mut jobs = Vec::new();
    for scenario in scenarios {
        if stack != Stack::Dual && !scenario.single_stack {
            continue;
        }
        for path in scenario.paths {
            jobs.extend(families.iter().map(|family| Job {
                scenario: *scenario,
                path: *path,
                family: **family,
            }));
        }
    }
    jobs
}

fn in_cluster(
    engine: Engine,
    stack: Stack,
    jobs: &[Job],
    parallel: usize,
    program: &str,
    matrix: &Mutex<Matrix>,
) {
    let record = |job: &Job, verdict: Verdict| {
        let row = Row {
            scenario: job.scenario.name,
            path: job.path,
        };
        let column = Column {
            engine,
            stack,
            family: job.family,
        };
        lock(matrix).set(column, row, verdict);
    };
    let cluster = match Cluster::up(engine, stack, program) {
        Ok(cluster) => cluster,
        Err(error) => {
            for job in jobs {
                record(job, Verdict::Fail(format!("{error:#}")));
            }
            return;
        }
    };
    let (alone, together): (Vec<Job>, Vec<Job>) = jobs.iter().partition(|job| job.scenario.alone);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..parallel.max(1) {
            scope.spawn(|| {
                while let Some(job) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    record(job, attempt(&cluster, job));
                }
            });
        }
    });
    for job in &alone {
        record(job, attempt(&cluster, job));
    }
}

fn attempt(cluster: &Cluster, job: &Job) -> Verdict {
    let run = || {
        let stage = Stage::new(cluster, job.scenario.name, job.path, job.family);
        (job.scenario.run)(&stage)
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => Verdict::Ok,
        Ok(Err(error)) => match error.downcast_ref::<Skip>() {
            Some(skip) => Verdict::Skip(skip.to_string()),
            None => Verdict::Fail(format!("{error:#}")),
        },
        Err(_) => Verdict::Fail("the scenario panicked".to_owned()),
    }
}
