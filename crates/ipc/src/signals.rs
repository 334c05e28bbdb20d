//! Signals that are the supervisor's. A terminal (Ctrl-C) or a service manager may signal every process of a node at
//! once; what a child does about it is for the supervisor to say.

use tokio::signal::unix::{SignalKind, signal};

/// Has this process take no notice of the supervisor's signals, SIGTERM excepted. Called within a tokio runtime.
///
/// # Errors
/// If the kernel refuses a handler.
pub fn leave_to_supervisor() -> std::io::Result<()> {
    let its = [
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    for kind in its {
        drop(signal(kind)?); // once asked for, a signal never again has its default effect
    }
    Ok(())
}
