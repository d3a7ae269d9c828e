//! Logs and exec.

use ripstop_apiserver::pods::{ExecRequest, LogOptions, PodAccess};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::harness::{Lab, run};

fn options(container: &str) -> LogOptions {
    LogOptions {
        container: container.to_owned(),
        ..LogOptions::default()
    }
}

#[test]
fn logs() {
    run(|| async {
        let lab = Lab::start().await;
        let line = "for i in 1 2 3; do echo line $i; done; echo problem >&2; \
                    until test -e /tmp/go; do sleep 0.01; done; echo last; exit 1";
        lab.create(
            "p",
            json!({"containers": [
                {"name": "c", "image": "alpine", "command": ["sh", "-c", line]},
            ]}),
        );
        lab.ready("p").await;
        let all = lab
            .until("4 lines", || {
                let text = futures::executor::block_on(lab.log("p", "c"));
                (text.lines().count() == 4).then_some(text)
            })
            .await;
        assert!(all.contains("line 1\nline 2\nline 3\n") && all.contains("problem\n"));
        let tail = LogOptions {
            tail_lines: Some(2),
            ..options("c")
        };
        assert_eq!(lab.log_with("p", tail).await.unwrap().lines().count(), 2);
        let stamped = LogOptions {
            timestamps: true,
            tail_lines: Some(1),
            ..options("c")
        };
        let stamped = lab.log_with("p", stamped).await.unwrap();
        assert!(
            stamped.starts_with("20") && stamped.contains("Z "),
            "{stamped}"
        );
        let previous = LogOptions {
            previous: true,
            ..options("c")
        };
        let error = lab.log_with("p", previous.clone()).await.unwrap_err();
        assert_eq!(
            error.message,
            "previous terminated container \"c\" in pod \"p\" not found"
        );

        let follow = lab.log_with(
            "p",
            LogOptions {
                follow: true,
                ..options("c")
            },
        );
        let go = lab.sh("p", "c", "touch /tmp/go");
        let (followed, _) = tokio::join!(follow, go);
        assert!(followed.unwrap().ends_with("last\n"));
        lab.container("p", "c", |status| {
            (status["restartCount"] == 1).then_some(())
        })
        .await;
        assert!(
            lab.log_with("p", previous)
                .await
                .unwrap()
                .ends_with("last\n")
        );
    });
}

#[test]
fn commands_with_pipes() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create("p", json!({"containers": [{"name": "c", "image": "x"}]}));
        lab.ready("p").await;
        let line = ["sh", "-c", "echo out; echo err >&2; exit 7"];
        assert_eq!(
            lab.exec("p", "c", &line).await,
            (7, "out\n".to_owned(), "err\n".to_owned())
        );
        let (code, _, err) = lab.exec("p", "c", &["no-such-program"]).await;
        assert_eq!(code, 128);
        assert!(err.contains("executable file not found in $PATH"), "{err}");
        let (code, _, _) = lab.exec("p", "c", &["sh", "-c", "kill -9 $$"]).await;
        assert_eq!(code, 137);

        let request = ExecRequest {
            container: "c".to_owned(),
            command: vec!["cat".to_owned()],
            stdin: true,
            stdout: true,
            ..ExecRequest::default()
        };
        let session = lab.kubelet.exec(lab.reference("p"), request).await.unwrap();
        let mut stdin = session.stdin.unwrap();
        stdin.write_all(b"through").await.unwrap();
        drop(stdin);
        let mut out = String::new();
        session
            .stdout
            .unwrap()
            .read_to_string(&mut out)
            .await
            .unwrap();
        assert_eq!((out.as_str(), session.exit.await), ("through", 0));

        let gone = ExecRequest {
            container: "none".to_owned(),
            ..ExecRequest::default()
        };
        let error = lab
            .kubelet
            .exec(lab.reference("p"), gone)
            .await
            .unwrap_err();
        assert_eq!(error.code(), 400);
    });
}

#[test]
fn commands_on_a_terminal() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create("p", json!({"containers": [{"name": "c", "image": "x"}]}));
        lab.ready("p").await;
        let request = ExecRequest {
            container: "c".to_owned(),
            command: ["sh", "-c", "tty; read a; stty size; exit 5"]
                .map(str::to_owned)
                .into(),
            stdin: true,
            stdout: true,
            tty: true,
            ..ExecRequest::default()
        };
        let session = lab.kubelet.exec(lab.reference("p"), request).await.unwrap();
        let resize = session.resize.unwrap();
        resize.send((80, 24)).await.unwrap();
        let (mut stdin, mut stdout) = (session.stdin.unwrap(), session.stdout.unwrap());
        let mut seen = String::new();
        while !seen.contains("/dev/pts/") {
            let mut buffer = [0; 100];
            let length = stdout.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "{seen}");
            seen.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        stdin.write_all(b"x\n").await.unwrap();
        stdout.read_to_string(&mut seen).await.unwrap();
        assert!(seen.contains("24 80"), "{seen}");
        assert_eq!(session.exit.await, 5);
    });
}

#[test]
fn a_command_that_nobody_waits_for_ends() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create("p", json!({"containers": [{"name": "c", "image": "x"}]}));
        lab.ready("p").await;
        let request = ExecRequest {
            container: "c".to_owned(),
            command: ["sleep", "1000"].map(str::to_owned).into(),
            ..ExecRequest::default()
        };
        let session = lab.kubelet.exec(lab.reference("p"), request).await.unwrap();
        drop(session);
        let count: Value = lab
            .until("only the stand-in", || {
                let processes = ripstop_lab::cgroup::processes(&lab.groups()[0]);
                // The stand-in and its supervisor.
                (processes.len() == 2).then(|| processes.len().into())
            })
            .await;
        assert_eq!(count, 2);
    });
}
