//! A proxy alone, without a supervisor: for measuring and for suites.
//!
//! `standalone PLAN WORKERS NODE`: opens the plan's listeners, runs the proxy in this process.

#[path = "../tests/common/mod.rs"]
mod common;

use std::os::fd::AsFd;

use relais_ipc::channel::text_to_fd;
use relais_ipc::{Channel, Order};

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(workers), Some(node)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: standalone PLAN WORKERS NODE");
        return std::process::ExitCode::FAILURE;
    };
    let workers: u16 = workers.parse().expect("a number of workers");
    let text = std::fs::read_to_string(&file).expect("the plan");
    let plan = relais_config::parse(&file, &text).unwrap_or_else(|rejected| panic!("{rejected}")).plan;
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket pair");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let channel = Channel::new(ours).expect("a channel");
            let id = plan.node(&node).expect("the node");
            let hello = Order::Hello { node: node.clone(), workers, run_dir: "/tmp".into() };
            channel.send(&hello, None).await.expect("hello");
            for path in plan.error_page_files() {
                let text = std::fs::read_to_string(&**path).expect("the error page");
                let order = Order::ErrorPage { path: path.to_string() };
                channel.send(&order, Some(text_to_fd(&text).expect("memory").as_fd())).await.expect("page");
            }
            for log in &plan.logs {
                if let relais_config::plan::LogTo::File(path) = &log.to {
                    let file = std::fs::File::options().create(true).append(true).open(&**path);
                    let order = Order::AccessLog { path: path.to_string() };
                    channel.send(&order, Some(file.expect("the log").as_fd())).await.expect("log");
                }
            }
            for (_, front) in plan.frontends_on(id) {
                for bind in &front.binds {
                    for (index, socket) in
                        common::Door::at(bind.address, workers).sockets().iter().enumerate()
                    {
                        let order = Order::Listener {
                            frontend: front.name.to_string(),
                            address: bind.address,
                            index: index as u16,
                        };
                        channel.send(&order, Some(socket.as_fd())).await.expect("listener");
                    }
                }
            }
            let mut files = relais_ipc::files::Files::default();
            for path in plan.files_on(id) {
                if let Ok(bytes) = std::fs::read(&*path) {
                    files.insert(&path, Ok(bytes));
                }
            }
            let fd = files.to_fd().expect("memory");
            channel.send(&Order::Files { renew: false }, Some(fd.as_fd())).await.expect("files");
            let order = Order::Plan { generation: 1, file };
            channel.send(&order, Some(text_to_fd(&text).expect("memory").as_fd())).await.expect("plan");
            while let Ok(Some((report, _))) = channel.recv::<relais_ipc::Report>().await {
                if report != relais_ipc::Report::Alive {
                    eprintln!("{report:?}");
                }
            }
        });
    });
    relais_ipc::journal::init("proxy");
    relais_proxy::run(theirs)
}
