//! What only pods have: binding, eviction, logs and exec.

use futures::StreamExt;
use http::StatusCode;
use http::request::Parts;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::path::Target;
use super::query::Query;
use super::respond::{self, Response};
use super::{Api, Call, body};
use crate::kinds::Part;
use crate::pods::{ExecRequest, LogOptions, PodRef};
use crate::registry::{DeleteOptions, Update};
use crate::storage::Object;
use crate::{Cause, Status};

impl Call<'_> {
    /// POST `binding`: what a scheduler does.
    pub(super) fn bind(&self, name: &str, bytes: &[u8]) -> Result<Response, Status> {
        let binding = body::object(self.headers, bytes)?;
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        if node.is_empty() {
            let cause = Cause::required("target.name", "");
            return Err(Status::invalid("", "Binding", name, vec![cause]));
        }
        let options = self.write_options()?;
        let update = Update {
            resource: &self.resource,
            namespace: self.namespace(),
            name,
            part: Part::Main,
            or_create: false,
            options: &options,
        };
        self.api.registry().update(&update, |current| {
            let current = current.ok_or_else(|| self.resource.not_found(name))?;
            let mut pod = current.value.clone();
            match pod["spec"]["nodeName"].as_str() {
                None | Some("") => pod["spec"]["nodeName"] = Value::from(node),
                Some(bound) => {
                    let why = format!("pod {name} is already assigned to node {bound:?}");
                    return Err(Status::conflict("", "pods/binding", name, &why));
                }
            }
            Ok(pod)
        })?;
        Ok(respond::json(StatusCode::CREATED, &success()))
    }

    /// POST `eviction`: a deletion; there are no disruption budgets to ask.
    pub(super) fn evict(&self, name: &str, bytes: &[u8]) -> Result<Response, Status> {
        let eviction = body::object(self.headers, bytes)?;
        let asked = &eviction["deleteOptions"];
        let options = DeleteOptions {
            grace_seconds: asked["gracePeriodSeconds"].as_i64(),
            uid: asked["preconditions"]["uid"].as_str().map(str::to_owned),
            dry_run: self.query.dry_run()?,
            ..DeleteOptions::default()
        };
        self.api
            .registry()
            .delete(&self.resource, self.namespace(), name, &options)?;
        Ok(respond::json(StatusCode::CREATED, &success()))
    }
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })
}

/// GET `log`.
pub(super) async fn log(
    api: &Api,
    target: &Target,
    name: &str,
    query: &Query,
) -> Result<Response, Status> {
    let pod = find(api, target, name)?;
    let container = container(&pod, query.get("container"))?;
    let state = container_state(&pod, &container);
    let waiting = state["waiting"]["reason"].as_str();
    let previous = query.flag("previous")?;
    if let (Some(reason), false) = (waiting, previous)
        && state["lastState"].is_null()
        && matches!(reason, "ContainerCreating" | "PodInitializing")
    {
        return Err(Status::bad_request(format!(
            "container {container:?} in pod {name:?} is waiting to start: {reason}"
        )));
    }
    let since = match query.number::<i64>("sinceSeconds")? {
        Some(seconds) => Some(crate::registry::epoch_seconds() - seconds),
        None => crate::registry::parse_time(query.get("sinceTime")),
    };
    let options = LogOptions {
        container,
        follow: query.flag("follow")?,
        tail_lines: query.number("tailLines")?,
        previous,
        since,
        timestamps: query.flag("timestamps")?,
        limit_bytes: query.number("limitBytes")?,
    };
    let lines = api.pods.logs(pod_ref(&pod), options).await?;
    let frames = lines.map(|bytes| Ok(Frame::data(bytes)));
    let mut response = respond::text("");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

/// GET (WebSocket) `exec`.
pub(super) async fn exec(
    api: &Api,
    target: &Target,
    query: &Query,
    parts: &mut Parts,
) -> Result<Response, Status> {
    let name = target.name.as_deref().unwrap_or_default();
    let pod = find(api, target, name)?;
    let container = container(&pod, query.get("container"))?;
    let command: Vec<_> = query.all("command").map(str::to_owned).collect();
    if command.is_empty() {
        return Err(Status::bad_request(
            "you must specify at least 1 command for exec",
        ));
    }
    let request = ExecRequest {
        container,
        command,
        stdin: query.flag("stdin")?,
        stdout: query.flag("stdout")?,
        stderr: query.flag("stderr")? && !query.flag("tty")?,
        tty: query.flag("tty")?,
    };
    super::exec::upgrade(api, pod_ref(&pod), request, parts).await
}

fn find(api: &Api, target: &Target, name: &str) -> Result<std::sync::Arc<Object>, Status> {
    let registry = api.registry();
    let pods = registry
        .resource(&target.group, &target.version, "pods")
        .ok_or_else(Status::no_such_resource)?;
    registry.get(&pods, target.namespace.as_deref().unwrap_or_default(), name)
}

fn pod_ref(pod: &Object) -> PodRef {
    PodRef {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        uid: pod.uid().to_owned(),
    }
}

/// The container asked for, or the only one.
fn container(pod: &Object, asked: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod.value["spec"][field]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        list.iter()
            .filter_map(|container| container["name"].as_str())
            .collect()
    };
    let (main, first) = (names("containers"), names("initContainers"));
    let pod_name = pod.name();
    if asked.is_empty() {
        return match main.as_slice() {
            [only] => Ok((*only).to_owned()),
            several => Err(Status::bad_request(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]{}",
                several.join(" "),
                if first.is_empty() {
                    String::new()
                } else {
                    format!(" or one of the init containers: [{}]", first.join(" "))
                },
            ))),
        };
    }
    if main.contains(&asked) || first.contains(&asked) {
        Ok(asked.to_owned())
    } else {
        Err(Status::bad_request(format!(
            "container {asked} is not valid for pod {pod_name}"
        )))
    }
}

/// `waiting` and `lastState` of a container, null where there is none.
fn container_state(pod: &Object, container: &str) -> Value {
    let status = &pod.value["status"];
    ["containerStatuses", "initContainerStatuses"]
        .iter()
        .filter_map(|field| status[field].as_array())
        .flatten()
        .find(|it| it["name"] == container)
        .map(|it| {
            json!({
                "waiting": it["state"]["waiting"],
                "lastState": it["lastState"]["terminated"],
            })
        })
        .unwrap_or_default()
}
