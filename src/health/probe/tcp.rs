//! TCP probe: a backend that accepts a connection is up.

use crate::net::fd::Socket;
use crate::policy::health::ProbeFault;

/// The connection was made, which is all that is required. It is closed without sending anything.
pub(super) fn judge(stream: Socket) -> Result<(), ProbeFault> {
    drop(stream);
    Ok(())
}
