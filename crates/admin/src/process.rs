//! Obeys the supervisor: where the run directory is, what the node looks like, which socket to answer on.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use relais_config::Plan;
use relais_config::overrides::Overrides;
use relais_ipc::channel::fd_to_text;
use relais_ipc::{Channel, Order, Report};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::scripts::Scripts;
use crate::server;
use crate::snapshot::Source;

/// Longest plan, bytes: the supervisor reads no longer ones.
const MAX_PLAN: u64 = 1024 * 1024;

/// Obeys the orders on `channel` until `Stop`, or until the supervisor is gone.
///
/// # Errors
/// If the channel speaks another language, or a socket cannot be used.
pub(crate) async fn run(channel: Channel) -> io::Result<()> {
    let source = Arc::new(Source::default());
    let mut offered: Option<OwnedFd> = None;
    let mut accepting: Option<JoinHandle<()>> = None;
    let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut scripts = Scripts::new(said);
    let mut name = String::new();
    let mut overrides = Overrides::default();
    loop {
        let (order, fd) = tokio::select! {
            order = channel.recv::<Order>() => match order? {
                Some(order) => order,
                None => break,
            },
            Some(report) = heard.recv() => {
                channel.send(&report, None).await?;
                continue;
            }
        };
        match order {
            Order::Hello { node, run_dir, .. } => {
                name.clone_from(&node);
                source.hello(node, run_dir.into());
            }
            Order::Status => serve_status(fd, source.clone())?,
            Order::Listener { .. } => offered = fd,
            Order::Node(node) => source.node_is(node),
            Order::Overrides => {
                let text = fd.map(|fd| fd_to_text(fd, MAX_PLAN)).transpose()?;
                overrides = Overrides::read(&text.unwrap_or_default()).0; // the supervisor has said what is wrong
            }
            Order::Plan { generation, file } => {
                let report = match read_plan(&file, fd) {
                    Err(why) => Report::Refused { generation, why },
                    Ok(mut plan) => {
                        std::mem::take(&mut overrides).apply(&mut plan);
                        source.plan_is(&plan);
                        scripts.run(plan.node(&name).into_iter().flat_map(|node| plan.scripts_on(node)));
                        // The socket that it names came just before it.
                        if let Some(socket) = offered.take() {
                            let listener = tokio::net::TcpListener::from_std(unblocked(socket)?)?;
                            let task = tokio::spawn(server::run(listener, source.clone()));
                            if let Some(previous) = accepting.replace(task) {
                                previous.abort(); // what it has accepted is answered all the same
                            }
                        }
                        Report::Ready { generation }
                    }
                };
                channel.send(&report, None).await?;
            }
            Order::Stop => break,
            other => debug!("an order that is not for control: {other:?}"),
        }
    }
    Ok(())
}

fn unblocked(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn read_plan(file: &str, fd: Option<OwnedFd>) -> Result<Plan, String> {
    let fd = fd.ok_or("the plan came without its text")?;
    let text = fd_to_text(fd, MAX_PLAN).map_err(|error| format!("the plan cannot be read: {error}"))?;
    Ok(relais_config::parse(file, &text).map_err(|rejected| rejected.to_string())?.plan)
}

/// Answers on the process's own status socket: with the node, as this process was told of it.
fn serve_status(fd: Option<OwnedFd>, source: Arc<Source>) -> io::Result<()> {
    let socket = fd.ok_or_else(|| io::Error::other("an order came without its descriptor"))?;
    let listener = std::os::unix::net::UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    tokio::spawn(relais_ipc::status::serve(listener, move || source.node()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use relais_ipc::status::{NodeStatus, fetch_async};
    use std::net::SocketAddr;
    use std::os::fd::AsFd;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A supervisor's end of a channel to a control process, and that process.
    async fn start() -> (Channel, JoinHandle<io::Result<()>>) {
        let (ours, theirs) = Channel::pair().unwrap();
        let process = tokio::spawn(run(Channel::new(theirs).unwrap()));
        let hello = Order::Hello { node: "n1".into(), workers: 1, run_dir: "/nonexistent".into() };
        ours.send(&hello, None).await.unwrap();
        (ours, process)
    }

    const PLAN: &str =
        "platform x\nnode n1 { link \"192.0.2.1\"; }\nnode n2 { link \"192.0.2.2\"; link \"10.0.0.2\"; }\n";

    async fn give_plan(channel: &Channel, socket: &TcpListener, generation: u64) {
        let report = offer_plan(channel, socket, generation, PLAN).await;
        assert_eq!(report, Report::Ready { generation });
    }

    async fn offer_plan(channel: &Channel, socket: &TcpListener, generation: u64, text: &str) -> Report {
        let address = socket.local_addr().unwrap();
        let listener = Order::Listener { frontend: "admin".into(), address, index: 0 };
        channel.send(&listener, Some(socket.as_fd())).await.unwrap();
        let text = relais_ipc::channel::text_to_fd(text).unwrap();
        channel.send(&Order::Plan { generation, file: "x".into() }, Some(text.as_fd())).await.unwrap();
        channel.recv::<Report>().await.unwrap().unwrap().0
    }

    fn socket() -> (TcpListener, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// The body of the answer; nothing if nobody answers.
    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut answer = String::new();
        let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return answer };
        let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let _ = stream.read_to_string(&mut answer).await;
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    #[tokio::test]
    async fn it_serves_where_the_latest_plan_says() {
        let (channel, _process) = start().await;
        let ((first, first_at), (second, second_at)) = (socket(), socket());
        give_plan(&channel, &first, 1).await;
        assert_eq!(ask(first_at, "/healthz").await, "ok\n");
        give_plan(&channel, &second, 2).await;
        assert_eq!(ask(second_at, "/healthz").await, "ok\n");
        drop(first); // the last one open, if control has let go of it
        assert_eq!(ask(first_at, "/healthz").await, "");
        give_plan(&channel, &second, 3).await; // the same socket again, as on every reload
        assert_eq!(ask(second_at, "/healthz").await, "ok\n");
    }

    #[tokio::test]
    async fn the_node_is_as_the_supervisor_says() {
        let (channel, _process) = start().await;
        let path = std::env::temp_dir().join(format!("relais-control-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let status = std::os::unix::net::UnixListener::bind(&path).unwrap();
        channel.send(&Order::Status, Some(status.as_fd())).await.unwrap();
        let node = NodeStatus { node: "n1".into(), generation: 7, ..NodeStatus::default() };
        channel.send(&Order::Node(node.clone()), None).await.unwrap();
        let (socket, address) = socket();
        give_plan(&channel, &socket, 7).await;
        let json: serde_json::Value = serde_json::from_str(&ask(address, "/status").await).unwrap();
        assert_eq!(json["node"]["generation"], 7);
        let names = serde_json::json!({ "10.0.0.2": "n2", "192.0.2.1": "n1", "192.0.2.2": "n2" });
        assert_eq!(json["names"], names);
        let document: NodeStatus = fetch_async(&path, Duration::from_secs(5)).await.unwrap();
        assert_eq!(document, node);
        let _ = std::fs::remove_file(path);
    }

    #[tokio::test]
    async fn a_plan_that_is_none_is_refused_and_the_old_one_served() {
        let (channel, _process) = start().await;
        let (socket, address) = socket();
        give_plan(&channel, &socket, 1).await;
        let Report::Refused { generation: 2, why } = offer_plan(&channel, &socket, 2, "platfrom x").await
        else {
            panic!("a broken plan was taken");
        };
        assert!(why.contains("platfrom"), "{why}");
        assert_eq!(ask(address, "/healthz").await, "ok\n");
    }

    #[tokio::test]
    async fn it_ends_on_stop_and_with_its_supervisor() {
        let soon = Duration::from_secs(5);
        let (channel, process) = start().await;
        channel.send(&Order::HandOver, None).await.unwrap(); // not for control: ignored
        channel.send(&Order::Stop, None).await.unwrap();
        assert!(tokio::time::timeout(soon, process).await.unwrap().unwrap().is_ok());
        let (channel, process) = start().await;
        drop(channel);
        assert!(tokio::time::timeout(soon, process).await.unwrap().unwrap().is_ok());
    }
}
