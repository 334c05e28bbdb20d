//! Obeys the supervisor: where the run directory is, what the node looks like, which socket to answer on.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use relais_ipc::{Channel, Order, Report};
use tokio::task::JoinHandle;
use tracing::debug;

use crate::server;
use crate::snapshot::Source;

/// Obeys the orders on `channel` until `Stop`, or until the supervisor is gone.
///
/// # Errors
/// If the channel speaks another language, or a socket cannot be used.
pub(crate) async fn run(channel: Channel) -> io::Result<()> {
    let source = Arc::new(Source::default());
    let mut offered: Option<OwnedFd> = None;
    let mut accepting: Option<JoinHandle<()>> = None;
    while let Some((order, fd)) = channel.recv::<Order>().await? {
        match order {
            Order::Hello { node, run_dir, .. } => source.hello(node, run_dir.into()),
            Order::Status => serve_status(fd, source.clone())?,
            Order::Listener { .. } => offered = fd,
            Order::Node(node) => source.node_is(node),
            Order::Plan { generation, .. } => {
                // Nothing in the plan but the socket is ours; it came just before.
                if let Some(socket) = offered.take() {
                    let listener = TcpListener::from(socket);
                    listener.set_nonblocking(true)?;
                    let listener = tokio::net::TcpListener::from_std(listener)?;
                    if let Some(previous) =
                        accepting.replace(tokio::spawn(server::run(listener, source.clone())))
                    {
                        previous.abort(); // what it has accepted is answered all the same
                    }
                }
                channel.send(&Report::Ready { generation }, None).await?;
            }
            Order::Stop => break,
            other => debug!("an order that is not for control: {other:?}"),
        }
    }
    Ok(())
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
