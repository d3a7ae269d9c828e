//! Runs all controllers: one cache, one queue each, one loop.
//!
//! They share a loop because they share their inputs. Every write is in memory,
//! so a decision with its writes takes microseconds, and a change can pass
//! through Deployment, ReplicaSet, scheduler and EndpointSlice without a context
//! switch. Nothing polls: the loop sleeps until a watch or a due time wakes it.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use ripstop_apiserver::Client;

use super::controller::Controller;
use super::execute::{Executor, Failure, Outcome};
use super::object::{Change, Key, News, Watches};
use super::plan::Plan;
use super::queue::Queue;
use super::recorder::Recorder;
use super::world::World;
use crate::clock;

/// Passes over the queues before other tasks of the runtime get a turn.
const PASSES: usize = 32;

pub(crate) struct Manager {
    client: Client,
    watches: Watches,
    world: World,
    controllers: Vec<Runner>,
    recorder: Recorder,
}

struct Runner {
    controller: Box<dyn Controller>,
    queue: Queue<Key>,
}

impl Runner {
    fn notice(&mut self, world: &World, change: &Change) {
        self.controller
            .affected(world, change, &mut |key| self.queue.add(key));
    }
}

impl Manager {
    pub(crate) fn new(client: Client, controllers: Vec<Box<dyn Controller>>) -> Self {
        let watches = Watches::open(&client);
        let runner = |controller| Runner {
            controller,
            queue: Queue::default(),
        };
        let controllers = controllers.into_iter().map(runner).collect();
        Self {
            client,
            watches,
            world: World::default(),
            controllers,
            recorder: Recorder::default(),
        }
    }

    /// Works for ever.
    pub(crate) async fn run(mut self) {
        loop {
            for _ in 0..PASSES {
                if !self.pass(clock::now()) {
                    break;
                }
            }
            if self.is_idle() {
                self.wait().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn wait(&mut self) {
        let due = self
            .controllers
            .iter()
            .filter_map(|runner| runner.queue.next_due())
            .min();
        let news = match due {
            None => self.watches.next().await,
            Some(due) => {
                let left = due.duration_since(clock::now());
                let left = Duration::try_from(left).unwrap_or_default();
                tokio::time::timeout(left, self.watches.next())
                    .await
                    .ok()
                    .flatten()
            }
        };
        if let Some(news) = news {
            self.take_in(news);
        }
    }

    /// Nothing is to be done before something changes or comes due.
    fn is_idle(&self) -> bool {
        let now = clock::now();
        let is_quiet = |runner: &Runner| {
            runner.queue.is_empty() && runner.queue.next_due().is_none_or(|due| due > now)
        };
        self.recorder.is_idle() && self.controllers.iter().all(is_quiet)
    }

    /// Takes in what changed and lets every controller decide about one object,
    /// in the order in which data flows. Whether anything was done.
    pub(crate) fn pass(&mut self, now: Timestamp) -> bool {
        let mut news = Vec::new();
        self.watches.drain(|one| news.push(one));
        news.into_iter().for_each(|one| self.take_in(one));
        let mut worked = false;
        for index in 0..self.controllers.len() {
            if let Some(key) = self.controllers[index].queue.pop(now) {
                self.work(index, key, now);
                worked = true;
            }
        }
        if !worked && !self.recorder.is_idle() {
            self.recorder.write_one(&self.client);
            return true;
        }
        worked
    }

    fn take_in(&mut self, news: News) {
        let change = match news {
            News::Applied(object) => self.world.put(object),
            News::Deleted(object) => self.world.remove(object.kind(), &object.key()),
        };
        self.notice(change);
    }

    fn notice(&mut self, change: Option<Change>) {
        let Some(change) = change else { return };
        for runner in &mut self.controllers {
            runner.notice(&self.world, &change);
        }
    }

    fn work(&mut self, index: usize, key: Key, now: Timestamp) {
        let plan = self.controllers[index]
            .controller
            .decide(&self.world, &key, now);
        let again_at = plan.again_at;
        let failure = self.execute(plan, now);
        if let Some(Failure::CreateRefused(status)) = &failure {
            let controller = &self.controllers[index].controller;
            let plan = controller.refused(&self.world, &key, &status.to_string(), now);
            if let Some(failure) = self.execute(plan, now) {
                tracing::debug!(?key, %failure, "cannot report a refusal");
            }
        }
        let runner = &mut self.controllers[index];
        match failure {
            None => {
                runner.queue.succeeded(&key);
                if let Some(at) = again_at {
                    runner.queue.add_at(key, at);
                }
            }
            Some(Failure::Gone(status)) => {
                let controller = runner.controller.component();
                tracing::debug!(controller, ?key, %status, "nothing left to do");
                runner.queue.succeeded(&key);
            }
            Some(failure) => {
                let controller = runner.controller.component();
                tracing::debug!(controller, ?key, %failure, "will decide anew");
                runner.queue.failed(key, now);
            }
        }
    }

    /// Executes a plan up to its first failure.
    fn execute(&mut self, plan: Plan, now: Timestamp) -> Option<Failure> {
        let client = self.client.clone();
        let mut executor = Executor::new(&client, now);
        let mut failure = None;
        for action in plan.actions {
            match executor.execute(action) {
                // Seen at once, so that the next decision does not repeat this one.
                Outcome::Written(object) => {
                    let change = self.world.put(object);
                    self.notice(change);
                }
                Outcome::Done => {}
                Outcome::Failed(why) => {
                    failure = Some(why);
                    break;
                }
            }
        }
        for event in executor.events {
            self.recorder.record(event, now);
        }
        failure
    }
}
