//! Load that has to be answered without exception, while a test does something
//! to who answers.

use std::io::Write;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::Lab;

/// What is said of a request without an answer: `$1` is how `read` ended.
const NO_ANSWER: &str = r#"
no_answer() {
    case $1 in 1) why='refused' ;; *) why='no answer in 5 s' ;; esac
    echo "$why after $n, at $EPOCHREALTIME"
}
"#;

/// Requests over one connection to `$to`, a host and port with a slash between,
/// until standard input ends; then their number. The pause between them is the
/// wait for that end.
pub const KEPT: &str = r#"
exec 3<>/dev/tcp/$to
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    printf 'GET / HTTP/1.1\r\nHost: kept\r\n\r\n' >&3 || exit 1
    length=
    while read -r -t 5 -u 3 line; do
        line=${line%$'\r'}
        case $line in [Cc]ontent-[Ll]ength:*) length=${line#*: } ;; '') break ;; esac
    done
    [ -n "$length" ] || { echo "no answer after $n" >&2; exit 1; }
    LC_ALL=C read -r -t 5 -u 3 -N "$length" body || { echo "cut after $n" >&2; exit 1; }
    n=$((n + 1))
done
echo $n
"#;

/// Likewise, datagrams of one connected socket: each has to be answered.
pub const KEPT_UDP: &str = r#"
exec 3<>/dev/udp/$to
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    printf x >&3 || { echo "not sent after $n" >&2; exit 1; }
    read -r -t 5 -u 3 -N 1 answer || { no_answer $? >&2; exit 1; }
    n=$((n + 1))
done
echo $n
"#;

/// Likewise, each of a socket of its own.
pub const NEW_UDP: &str = r#"
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    exec 3<>/dev/udp/$to
    printf x >&3 || { echo "not sent after $n" >&2; exit 1; }
    read -r -t 5 -u 3 -N 1 answer || { no_answer $? >&2; exit 1; }
    exec 3>&-
    n=$((n + 1))
done
echo $n
"#;

/// Likewise, connections: the server's answer begins.
pub const NEW_TCP: &str = r#"
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    exec 3<>/dev/tcp/$to || { echo "no connection after $n" >&2; exit 1; }
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    read -r -t 5 -u 3 -N 1 answer || { no_answer $? >&2; exit 1; }
    exec 3>&-
    n=$((n + 1))
done
echo $n
"#;

/// Where loops run, and whom they ask.
#[derive(Debug)]
pub struct From {
    pub what: &'static str,
    pub place: &'static [&'static str],
    /// Host and port, as bash writes them.
    pub to: String,
}

/// A loop that goes on until it is told to stop.
#[derive(Debug)]
pub struct Loop {
    pub what: String,
    child: Child,
}

impl Loop {
    pub fn start(lab: &Lab, from: &From, what: &str, script: &str) -> Self {
        let script = format!("to={}\n{NO_ANSWER}{script}", from.to);
        let args = [from.place, &["--", "bash", "-c", &script]].concat();
        let mut command = lab.command("exec", &args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            what: format!("{} {what}", from.what),
            child: command.spawn().expect("run ripstop lab exec"),
        }
    }

    /// How many requests were answered: all of them.
    pub fn end(mut self) -> u32 {
        if let Some(mut stdin) = self.child.stdin.take() {
            // Gone already is an error that its output explains.
            let _ = stdin.write_all(b"stop\n");
        }
        let output = self.child.wait_with_output().expect("the loop ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let error = text(&output.stderr);
        assert!(output.status.success(), "{}: {error}", self.what);
        text(&output.stdout).trim().parse().expect("a number")
    }
}

/// New connections to the service, one after the other.
pub fn connect_again_and_again(lab: &Lab, stop: &AtomicBool, done: &AtomicU32) {
    let ask = "for i in $(seq 25); do \
               wget -T 5 -t1 -nv -O /dev/null http://$WEB_SERVICE_HOST/ || exit 1; done";
    while !stop.load(Ordering::Relaxed) {
        lab.exec("client", &["sh", "-c", ask]);
        done.fetch_add(25, Ordering::Relaxed);
    }
}

/// Tells threads to stop, however its owner ends.
#[derive(Debug)]
pub struct StopAtEnd<'a>(pub &'a AtomicBool);
impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
